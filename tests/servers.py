"""Real daemons for tests: started on free loopback ports in a folder of their own, waited for by polling, ended by pid."""

import asyncio
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

import urllib3

T = TypeVar("T")

READY_SECONDS = 60.0
"""A deadline and not a wait: everything here returns as soon as it may."""


def program(name: str, package: str) -> str:
    """The path of an installed program; a test without it fails and says how to get it."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        raise AssertionError(f"{name} is not installed: apt-get install -y --no-install-recommends {package}")
    return found


_given_ports: set[int] = set()


def free_port() -> int:
    """A TCP port of the loopback that nobody uses now, never the same twice: it may be that of a server that is dead for a while."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _given_ports:
            _given_ports.add(port)
            return port


def answers(port: int) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(condition: Callable[[], object], timeout_seconds: float = READY_SECONDS) -> None:
    """Return when `condition` holds; fail when it does not within the deadline."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout_seconds:g} s: {condition}")
        time.sleep(0.01)


async def until_async(
    condition: Callable[[], object | Awaitable[object]], timeout_seconds: float = READY_SECONDS
) -> None:
    """`until` for a test with an event loop; `condition` may be a coroutine function."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        held = condition()
        if isinstance(held, Awaitable):
            held = await held
        if held:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout_seconds:g} s: {condition}")
        await asyncio.sleep(0.01)


async def following(stream: AsyncIterable[T]) -> T:
    """The next item of a stream; fails when none comes within the deadline."""
    async with asyncio.timeout(READY_SECONDS):
        return await anext(aiter(stream))


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def tcp_server(handle: Handler, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A TCP server on the loopback in this event loop; gives its port. All connections that it took are closed with it.

    One that is left open is found by the garbage collector, in another test.
    """
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None]] = []

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(take, "127.0.0.1", port, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # a client that leaves early is no trouble of a server's
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # the transports close their sockets in the loop's next turn


class Daemon:
    """A program that runs until it is ended; a context manager. Its output is the file `log` in `folder`."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        folder: Path,
        is_ready: Callable[[], object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.folder = folder
        self.log = folder / f"{Path(self.argv[0]).name}.log"
        self._is_ready = is_ready
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running program."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> Self:
        """Start and wait until it is ready; what it printed stands in the failure when it is not."""
        assert self._process is None, "started already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self._environment) if self._environment is not None else None,
            )
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self.argv[0]} did not start:\n{self.log.read_text(errors='replace')}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """End it politely and wait until it is gone."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does (kill -9)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """kill -9, then start with the same files on the same port."""
        self.kill()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(READY_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()


class Mosquitto(Daemon):
    """A mosquitto on `port`. settings: what its configuration says besides the listener; TLS and users go there."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true", port: int | None = None) -> None:
        self.port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "mosquitto.conf"
        configuration.write_text(f"user root\nlistener {self.port} 127.0.0.1\n{settings}\n")
        argv = [program("mosquitto", "mosquitto"), "-c", str(configuration)]
        super().__init__(argv, folder, lambda: answers(self.port))


_INFLUX = """\
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
  index-version = "{index}"
  query-log-enabled = false
{data}
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:{port}"
  auth-enabled = true
  log-enabled = false
{http}
[logging]
  level = "warn"
"""


class Influx(Daemon):
    """An InfluxDB 1.x on `port` that asks for passwords. http, data: more settings of its sections of that name."""

    ADMIN = ("admin", 'admin\'s "pass" word')

    def __init__(self, folder: Path, http: str = "", data: str = "", index: str = "tsi1") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "influxdb.conf"
        configuration.write_text(
            _INFLUX.format(rpc=free_port(), folder=folder, port=self.port, http=http, data=data, index=index)
        )
        argv = [program("influxd", "influxdb"), "-config", str(configuration)]
        super().__init__(argv, folder, self._is_up)
        self._has_admin = False

    def _is_up(self) -> bool:
        try:
            return urllib3.request("GET", f"{self.url}/ping", retries=False, timeout=1).status == 204
        except urllib3.exceptions.HTTPError:
            return False

    def ask(self, statement: str, database: str = "", epoch: str = "ms") -> str:
        """What the server answers its administrator; fails when it complains."""
        if not self._has_admin:
            self._has_admin = True
            self.ask(f"CREATE USER {self.ADMIN[0]} WITH PASSWORD '{_quoted(self.ADMIN[1])}' WITH ALL PRIVILEGES")
        headers = urllib3.make_headers(basic_auth=":".join(self.ADMIN))
        fields = {"q": statement, "db": database, "epoch": epoch}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(fields)
        answer = urllib3.request("POST", f"{self.url}/query", body=body, headers=headers, retries=False)
        text = answer.data.decode()
        assert answer.status == 200 and '"error"' not in text, text
        return text


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def write_passwords(path: Path, passwords: Mapping[str, str]) -> Path:
    """A password_file for mosquitto: user -> password."""
    path.write_text("".join(f"{user}:{password}\n" for user, password in passwords.items()))
    path.chmod(0o600)
    subprocess.run([program("mosquitto_passwd", "mosquitto"), "-U", path], check=True, capture_output=True)
    return path


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A throwaway certificate authority; `certificate` is what a client has to trust."""

    def __init__(self, folder: Path, name: str = "test authority", days: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._days = folder, str(days)
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        extensions = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
        subject = ["-x509", "-days", self._days, "-subj", f"/CN={name}", "-out", str(self.certificate), *extensions]
        _openssl("req", *_new_key(self._key), *subject)

    def issue(
        self, name: str, alternative_names: str = "IP:127.0.0.1,DNS:localhost", options: Sequence[str] = ()
    ) -> Issued:
        """A certificate for a server or a client, its common name `name`. options: of `openssl x509`, its term if not the authority's."""
        stem = name.replace("/", "_")
        issued = Issued(self._folder / f"{stem}.crt", self._folder / f"{stem}.key")
        request, extensions = self._folder / f"{stem}.csr", self._folder / f"{stem}.ext"
        subject = "/CN=" + name.replace("/", "\\/")
        _openssl("req", *_new_key(issued.key), "-subj", subject, "-out", request)
        extensions.write_text(
            f"subjectAltName={alternative_names}\nbasicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\n"
            "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        signing = [
            "-CA",
            str(self.certificate),
            "-CAkey",
            str(self._key),
            "-CAcreateserial",
            *(options or ("-days", self._days)),
        ]
        _openssl("x509", "-req", "-in", request, *signing, "-extfile", extensions, "-out", issued.certificate)
        return issued


def _new_key(path: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(path)]


def _openssl(*words: str | Path) -> None:
    command = [program("openssl", "openssl"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
