"""An HTTP server in front of a real store that passes every request on, or answers as stores in trouble do."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import urllib3

SECONDS = 20.0


class HttpFaults:
    """Forwards to the loopback port `target`. A context manager; `port` is its own.

    answer: None passes requests on; (status, body) is the answer to all instead. is_hanging: requests are read and not
    answered before `mend`. loses_answers: requests are passed on, and the connection breaks in place of the answer.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.answer: tuple[int, bytes] | None = None
        self.is_hanging = self.loses_answers = False
        self.requests = 0
        self.mended = threading.Event()
        """Of the trouble of now."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.mend()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(SECONDS)

    def mend(self) -> None:
        """Pass on again; what hung is dropped."""
        self.answer, self.is_hanging, self.loses_answers = None, False, False
        self.mended.set()
        self.mended = threading.Event()


def _handler(faults: HttpFaults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            faults.requests += 1
            mended = faults.mended  # before the look: `mend` may come in between
            if faults.is_hanging:
                mended.wait(SECONDS)
                self.close_connection = True
            elif faults.answer:
                self._answer(*faults.answer, {})
            else:
                self._pass_on(body)

        def _pass_on(self, body: bytes) -> None:
            url = f"http://127.0.0.1:{faults.target}{self.path}"
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            try:
                answer = urllib3.request(
                    self.command, url, body=body, headers=headers, retries=False, timeout=SECONDS, decode_content=False
                )
            except urllib3.exceptions.HTTPError:
                self.close_connection = True
                return
            if faults.loses_answers:
                self.close_connection = True
                return
            kept = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
            self._answer(answer.status, answer.data, kept)

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: what matters is asserted."""

    return Handler


_PASSED = ("Content-Type", "Content-Encoding", "X-Influxdb-Version", "X-Influxdb-Error", "Retry-After")
