"""The one door to an InfluxDB server: lines in, rows out, its errors translated.

A database of 1.6 to 1.8 is written and asked through `/write` and `/query`; a bucket of 2.4 and later is written through
influxdb-client and asked through the same `/query`, since every bucket has a database of its name.
"""

import gzip
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from agent.errors import PointsRefused, StoreError
from agent.language import say

T = TypeVar("T")
MOST_STATEMENTS = 200
"""Of one request."""
CHUNK_ROWS = 20_000
FIRST_WAIT_SECONDS = 1.0


class Place(NamedTuple):
    """A server and what is ours there. database: the bucket's name on 2.x. org: None on 1.x. token or user and password."""

    url: str
    database: str
    org: str | None
    token: str | None
    user: str | None
    password: str | None
    ca: str | None
    connect_timeout_seconds: float
    timeout_seconds: float

    def __repr__(self) -> str:
        """Without its secrets, wherever it is shown."""
        return f"Place({self.url!r}, {self.database!r})"

    @property
    def is_bucket(self) -> bool:
        """Whether this is a bucket of 2.x."""
        return self.org is not None


class Rows(NamedTuple):
    """Rows of one series, or a part of them. statement: its place among those asked. values: one list for each row."""

    statement: int
    tags: Mapping[str, str]
    columns: Sequence[str]
    values: list[list[Any]]


class _Series(msgspec.Struct):
    values: list[list[Any]] = []
    columns: list[str] = []
    tags: dict[str, str] = {}


class _Result(msgspec.Struct):
    statement_id: int = 0
    series: list[_Series] = []
    error: str = ""


class _Answer(msgspec.Struct):
    results: list[_Result] = []
    error: str = ""


class Door:
    """Requests of one store; may be used from any thread. Every call raises StoreError with one clear sentence."""

    def __init__(
        self,
        place: Place,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.place = place
        self._sleep, self._clock = sleep, clock
        self._timeout = urllib3.Timeout(connect=place.connect_timeout_seconds, read=place.timeout_seconds)
        trust: dict[str, Any] = {"ca_certs": place.ca} if place.ca else {}
        self._pool = urllib3.PoolManager(retries=False, maxsize=8, **trust)
        self._decode = msgspec.json.Decoder(_Answer)
        self._client: InfluxDBClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        self._pool.clear()
        client, self._client = self._client, None
        if client is not None:
            client.close()  # type: ignore[no-untyped-call]

    def version(self) -> str:
        """What the server says it is, such as `1.6.7`; '' when it does not say."""
        with self._explained():
            response = self._pool.request(
                "GET", f"{self.place.url}/ping", headers=self._authority(), timeout=self._timeout
            )
        if response.status >= 300:
            raise self._refusal(response.status, response.data.decode("utf-8", "replace"))
        return str(response.headers.get("X-Influxdb-Version", "")).removeprefix("v")

    def ask(self, statements: Sequence[str]) -> Iterator[Rows]:
        """The rows of each statement, as they come in; times in milliseconds. Raises StoreError also while it gives them."""
        for first in range(0, len(statements), MOST_STATEMENTS):
            for rows in self._ask(statements[first : first + MOST_STATEMENTS]):
                yield rows._replace(statement=first + rows.statement)

    def _ask(self, statements: Sequence[str]) -> Iterator[Rows]:
        fields = {
            "db": self.place.database,
            "q": ";".join(statements),
            "epoch": "ms",
            "chunked": "true",
            "chunk_size": str(CHUNK_ROWS),
        }
        response = self._patiently(lambda: self._post("/query", fields=fields, encode_multipart=False))
        try:
            for text in self._lines(response):
                yield from self._read(text)
        except BaseException:
            response.close()  # what is left of it must not be taken for the next answer
            raise
        finally:
            response.release_conn()

    def _lines(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        rest: list[bytes] = []
        with self._explained():
            for part in response.stream(2**18, decode_content=True):
                head, *tail = part.split(b"\n")
                rest.append(head)
                for following in tail:
                    yield b"".join(rest)
                    rest = [following]
        yield b"".join(rest)

    def _read(self, text: bytes) -> Iterator[Rows]:
        if not text.strip():
            return
        try:
            answer = self._decode.decode(text)
        except msgspec.DecodeError as error:
            shown = text[:80].decode("utf-8", "replace")
            raise self._trouble(f"答复无法理解：{shown}", f"the answer is not to be understood: {shown}") from error
        for result in answer.results:
            if result.error:
                raise self._refusal(400, result.error)
            for series in result.series:
                yield Rows(result.statement_id, series.tags, series.columns, series.values)
        if answer.error:
            raise self._refusal(400, answer.error)

    def write(self, lines: Sequence[str]) -> None:
        """Lines with times in nanoseconds; safe against kill -9 when it returns. Raises PointsRefused for a partial write."""
        body = "\n".join(lines).encode()
        if self.place.is_bucket:
            self._patiently(lambda: self._write_bucket(body))
        else:
            packed = gzip.compress(body, 1, mtime=0)
            self._patiently(
                lambda: self._post(
                    "/write",
                    query=f"?{urlencode({'db': self.place.database, 'precision': 'ns'})}",
                    body=packed,
                    headers={"Content-Encoding": "gzip", "Content-Type": "text/plain; charset=utf-8"},
                )
            ).release_conn()

    def _write_bucket(self, body: bytes) -> None:
        api = self._library().write_api(write_options=SYNCHRONOUS)
        api.write(self.place.database, self.place.org or "", body, WritePrecision.NS)  # type: ignore[arg-type]

    def delete(self, measurement: str, start_ns: int, end_ns: int, tags: Mapping[str, str]) -> None:
        """Deletes the rows of `measurement` with these tags and start_ns <= time < end_ns. Values of tags are plain words."""
        if self.place.is_bucket:
            predicate = " AND ".join(
                f'{name}="{value}"' for name, value in {"_measurement": measurement, **tags}.items()
            )
            span = _moment(start_ns), _moment(end_ns - 1)
            self._patiently(
                lambda: self._library().delete_api().delete(*span, predicate, self.place.database, self.place.org)
            )
            return
        words = [f"\"{name}\" = '{value}'" for name, value in tags.items()]
        condition = " AND ".join([f"time >= {start_ns}", f"time < {end_ns}", *words])
        for _ in self.ask([f'DELETE FROM "{measurement}" WHERE {condition}']):  # noqa: S608  # names are checked
            pass

    def _library(self) -> InfluxDBClient:
        """The library's client; without retries of its own."""
        if self._client is None:
            place = self.place
            self._client = InfluxDBClient(
                url=place.url,
                token=place.token or "",
                username=place.user,
                password=place.password,
                org=place.org or "",
                timeout=(int(place.connect_timeout_seconds * 1000), int(place.timeout_seconds * 1000)),
                enable_gzip=True,
                retries=False,
                ssl_ca_cert=place.ca,
            )
        return self._client

    def _post(self, path: str, query: str = "", headers: Mapping[str, str] | None = None, **what: Any) -> Any:
        response = self._pool.request(
            "POST",
            f"{self.place.url}{path}{query}",
            headers={**self._authority(), **(headers or {})},
            timeout=self._timeout,
            preload_content=False,
            **what,
        )
        if response.status >= 300:
            try:
                raise _Refused(response.status, response.read().decode("utf-8", "replace"), response.headers)
            finally:
                response.release_conn()
        return response

    def _authority(self) -> Mapping[str, str]:
        if self.place.token is not None:
            return {"Authorization": f"Token {self.place.token}"}
        if self.place.user is not None:
            return dict(urllib3.make_headers(basic_auth=f"{self.place.user}:{self.place.password or ''}"))
        return {}

    def _patiently(self, call: Callable[[], T]) -> T:
        """The call's result. A server that asks us to wait (429, 503 with Retry-After) is waited for within the time limit."""
        deadline = self._clock() + self.place.timeout_seconds
        while True:
            try:
                with self._explained():
                    return call()
            except _Refused as refused:
                wait_seconds = refused.wait_seconds()
                if wait_seconds is None or self._clock() + wait_seconds > deadline:
                    raise self._refusal(refused.status, refused.text) from refused
            self._sleep(wait_seconds)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the libraries as ours. None of their texts is shown: they may hold what was sent."""
        limit = f"{self.place.timeout_seconds:g}"
        try:
            yield
        except ApiException as error:
            if error.status:
                raise _Refused(error.status, str(error.body or ""), error.headers or {}) from error
            raise self._trouble(*_TLS) from error
        except SSLError as error:
            raise self._trouble(*_TLS) from error
        except NewConnectionError as error:
            raise self._trouble(
                "无法连接；InfluxDB 是否在运行？地址是否正确？",
                "cannot connect; does InfluxDB run, is the address right?",
            ) from error
        except ConnectTimeoutError as error:
            raise self._trouble(
                "连接超时；请检查地址与防火墙", "connecting takes too long; look at address and firewall"
            ) from error
        except ReadTimeoutError as error:
            raise self._trouble(f"{limit} 秒内没有答复", f"no answer within {limit} s") from error
        except (ProtocolError, IncompleteRead) as error:
            raise self._trouble("连接中途断开", "the connection broke") from error
        except (HTTPError, OSError) as error:
            name = type(error).__name__
            raise self._trouble(f"请求失败({name})", f"the request failed ({name})") from error

    def _trouble(self, zh: str, en: str) -> StoreError:
        return StoreError(f"{self.place.url}: {say(zh, en)}")

    def _refusal(self, status: int, body: str) -> StoreError:
        """What the server answered as one sentence."""
        text = _complaint(body)
        if is_definite(text):
            return PointsRefused(f"{self.place.url}: {_explain_points(text)}")
        for found, zh, en in _COMPLAINTS:
            if found in text:
                return self._trouble(zh.format(self.place.database), en.format(self.place.database))
        zh, en = _STATUS.get(status, (f"拒绝(HTTP {status})：{text}", f"refuses (HTTP {status}): {text}"))
        if status >= 500 and status not in _STATUS:
            zh, en = f"服务器出错(HTTP {status})：{text}", f"the server is in trouble (HTTP {status}): {text}"
        return self._trouble(zh.format(self.place.database), en.format(self.place.database))


class _Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        super().__init__(status)
        self.status, self.text = status, text
        self._after = headers.get("Retry-After")

    def wait_seconds(self) -> float | None:
        """How long the server wants us to wait; None when it does not want us back."""
        if self.status not in (429, 503):
            return None
        if self._after is not None and self._after.strip().isdecimal():
            return float(self._after)
        return FIRST_WAIT_SECONDS if self.status == 429 else None


def is_definite(text: str) -> bool:
    """Whether a refusal is of single points, of which the same would be said for ever, while the others were taken.

    Other partial writes (too many series) end when somebody changes the server's configuration.
    """
    return any(found in text for found in ("field type conflict", "beyond retention policy"))


_CONFLICT = re.compile(r'input field \\?"(?P<field>[^"\\]*)\\?" on measurement \\?"(?P<measurement>[^"\\]*)\\?"')


def _explain_points(text: str) -> str:
    conflict = _CONFLICT.search(text)
    if conflict is not None:
        name = f"{conflict['measurement']}.{conflict['field']}"
        return say(
            f"字段 {name} 在库中已是另一种类型，这些点写不进去；请查出是谁以别的类型写入，并换库或删除该字段的旧数据",
            f"field {name} has another type in the database, these points cannot be written; find who wrote it so, and change the database or delete that field's old data",
        )
    return say(
        "有点早于该库的保留期限，写不进去；本程序自己按目录清理，请把库的保留期限设为无限",
        "points are older than the database's retention and cannot be written; this program prunes by the catalogue, so let the retention be infinite",
    )


class _Complaint(msgspec.Struct):
    error: str = ""
    message: str = ""


def _complaint(body: str) -> str:
    """What the server says in its own words: `error` on 1.x, `message` on 2.x."""
    try:
        said = msgspec.json.decode(body, type=_Complaint)
    except msgspec.DecodeError:
        return " ".join(body.split())[:200]
    return said.message or said.error or body[:200]


def _moment(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


_TLS = (
    "TLS 连接失败；请检查证书与 store.ca",
    "the TLS connection failed; look at the certificate and store.ca",
)
_STATUS: Mapping[int, tuple[str, str]] = {
    401: (
        "令牌或用户名密码不对；请检查 store 的 token，或 user 与 password",
        "the token, or the user and password, are wrong; look at the store's token, or its user and password",
    ),
    403: (
        "没有读写 {} 的权限；请授予该令牌或用户读写权限",
        "no right to read and write {}; grant this token or user both",
    ),
    404: ("找不到库 {}；请先创建它", "there is no database or bucket {}; make it first"),
    413: ("一次写入过大；请提高服务器的 max-body-size", "the write is too large; raise the server's max-body-size"),
    429: ("服务器忙，要求稍后再来", "the server is busy and asks to come later"),
}
_COMPLAINTS: Sequence[tuple[str, str, str]] = (
    ("database not found", *_STATUS[404]),
    ("bucket not found", *_STATUS[404]),
    ("could not find bucket", *_STATUS[404]),
    (
        "no space left",
        "服务器的磁盘已满；请腾出空间，若 InfluxDB 1.x 仍拒绝写入则重启它",
        "the server's disk is full; make room, and restart InfluxDB 1.x if it goes on refusing",
    ),
    ("not authorized", *_STATUS[403]),
    ("authorization failed", *_STATUS[401]),
    (
        "max-series-per-database",
        "序列数已达该库的上限，新的对象写不进去；请提高服务器的 max-series-per-database",
        "the database holds as many series as it may, new ones cannot be written; raise the server's max-series-per-database",
    ),
    (
        "max-values-per-tag",
        "某个标签的取值数已达上限，新的对象写不进去；请提高服务器的 max-values-per-tag",
        "a tag has as many values as it may, new ones cannot be written; raise the server's max-values-per-tag",
    ),
    (
        "exceed file limit",
        "InfluxDB 3 拒绝这么长的时间窗口；请用 1.6 至 2.x，或提高它的 query-file-limit",
        "InfluxDB 3 refuses so long a window; use 1.6 to 2.x, or raise its query-file-limit",
    ),
)
"""What the server's text holds, and what a person reads then; the first that fits."""
