"""The one door to an InfluxDB server: lines in, rows out, its errors translated.

A database of 1.6 to 1.8 is written and asked through `/write` and `/query`; a bucket of 2.4 and later is written through
influxdb-client and asked through the same `/query`, since every bucket has a database of its name.
"""

import gzip
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
from collector.stores._influx_refusals import Refused

T = TypeVar("T")
MOST_STATEMENTS = 200
"""Of one request."""
CHUNK_ROWS = 20_000


class Place(NamedTuple):
    """A server and what is ours there. database: the bucket's name on 2.x. org: None on 1.x. token or user and password.

    is_packed: whether what is written goes as gzip.
    """

    url: str
    database: str
    org: str | None
    token: str | None
    user: str | None
    password: str | None
    ca: str | None
    is_packed: bool
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
        self._client = self._library() if place.is_bucket else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        self._pool.clear()
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]

    def version(self) -> str:
        """What the server says it is, such as `1.6.7`; '' when it does not say."""
        with self._explained():
            response = self._pool.request(
                "GET", f"{self.place.url}/ping", headers=self._authority(), timeout=self._timeout
            )
        if response.status >= 300:
            raise self._refusal(Refused(response.status, response.data.decode("utf-8", "replace")))
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
                raise self._refusal(Refused(400, result.error))
            for series in result.series:
                yield Rows(result.statement_id, series.tags, series.columns, series.values)
        if answer.error:
            raise self._refusal(Refused(400, answer.error))

    def write(self, lines: Sequence[str]) -> None:
        """Lines with times in nanoseconds; safe against kill -9 when it returns. Raises PointsRefused for a partial write."""
        body = "\n".join(lines).encode()
        client = self._client
        if client is not None:
            self._patiently(lambda: self._write_bucket(client, body))
        else:
            self._write_database(body)

    def _write_database(self, body: bytes) -> None:
        query = f"?{urlencode({'db': self.place.database, 'precision': 'ns'})}"
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self.place.is_packed:
            body, headers["Content-Encoding"] = gzip.compress(body, 1, mtime=0), "gzip"
        self._patiently(lambda: self._post("/write", query=query, body=body, headers=headers)).release_conn()

    def _write_bucket(self, client: InfluxDBClient, body: bytes) -> None:
        api = client.write_api(write_options=SYNCHRONOUS)
        api.write(self.place.database, self.place.org or "", body, WritePrecision.NS)  # type: ignore[arg-type]

    def delete(self, measurement: str, start_ns: int, end_ns: int, tags: Mapping[str, str]) -> None:
        """Deletes the rows of `measurement` with these tags and start_ns <= time < end_ns. Values of tags are plain words."""
        client = self._client
        if client is not None:
            predicate = " AND ".join(
                f'{name}="{value}"' for name, value in {"_measurement": measurement, **tags}.items()
            )
            span = _moment(start_ns), _moment(end_ns - 1)
            self._patiently(lambda: client.delete_api().delete(*span, predicate, self.place.database, self.place.org))
            return
        words = [f"\"{name}\" = '{value}'" for name, value in tags.items()]
        condition = " AND ".join([f"time >= {start_ns}", f"time < {end_ns}", *words])
        for _ in self.ask([f'DELETE FROM "{measurement}" WHERE {condition}']):  # noqa: S608  # names are checked
            pass

    def find_bucket(self) -> float | None:
        """For how many seconds our bucket of 2.x keeps what it holds, 0 for good; None when there is no such bucket."""
        client = self._client or self._library()
        found = self._patiently(lambda: client.buckets_api().find_bucket_by_name(self.place.database))  # type: ignore[no-untyped-call]
        rules = found.retention_rules if found is not None else []
        return None if found is None else float(sum(rule.every_seconds for rule in rules))

    def make_bucket(self) -> None:
        """Makes our bucket of 2.x, kept for good."""
        client = self._client or self._library()
        self._patiently(lambda: client.buckets_api().create_bucket(bucket_name=self.place.database, org=self.place.org))

    def _library(self) -> InfluxDBClient:
        """The library's client; without retries of its own."""
        place = self.place
        return InfluxDBClient(
            url=place.url,
            token=place.token or "",
            org=place.org or "",
            timeout=(int(place.connect_timeout_seconds * 1000), int(place.timeout_seconds * 1000)),
            enable_gzip=place.is_packed,
            retries=False,
            ssl_ca_cert=place.ca,
        )

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
                raise Refused(response.status, response.read().decode("utf-8", "replace"), response.headers)
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
            except Refused as refused:
                wait_seconds = refused.wait_seconds()
                if wait_seconds is None or self._clock() + wait_seconds > deadline:
                    raise self._refusal(refused) from refused
            self._sleep(wait_seconds)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors of the libraries as ours. None of their texts is shown: they may hold what was sent."""
        limit = f"{self.place.timeout_seconds:g}"
        try:
            yield
        except ApiException as error:
            if error.status:
                raise Refused(error.status, str(error.body or ""), error.headers or {}) from error
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

    def _refusal(self, refused: Refused) -> StoreError:
        """What the server answered as one sentence."""
        kind = PointsRefused if refused.is_definite else StoreError
        return kind(f"{self.place.url}: {refused.explain(self.place.database)}")


def _moment(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


_TLS = (
    "TLS 连接失败；请检查证书与 store.ca",
    "the TLS connection failed; look at the certificate and store.ca",
)
