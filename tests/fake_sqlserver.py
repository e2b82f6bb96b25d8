"""A fake SQL Server: MS-TDS 7.4 as far as a client needs to log in and read rows; what it answers is the test's.

Built from the public protocol document [MS-TDS] (packets, PRELOGIN, LOGIN7, COLMETADATA, ROW, ERROR, DONE, TLS within PRELOGIN).
It knows no SQL: the first of `answers` whose words stand in a statement is what it gives.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from servers import Issued

PRELOGIN, RESPONSE, LOGIN7 = 0x12, 0x04, 0x10
ENCRYPT_ON, ENCRYPT_NOT_SUPPORTED = 1, 2
Cell = str | int | bool | None


@dataclass(frozen=True)
class Rows:
    """An answer: the names of columns, and rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Refusal:
    """An error as the server words it."""

    number: int
    words: str


class _Wire:
    """Packets over a socket, in the clear or through TLS."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._tls: tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO] | None = None

    def read_packet(self) -> tuple[int, bytes]:
        """A message: its type and all its packets' contents."""
        content, is_last, kind = b"", False, 0
        while not is_last:
            kind, status, length = struct.unpack(">BBH", self._read(8)[:4])
            content += self._read(length - 8)
            is_last = bool(status & 1)
        return kind, content

    def write_packet(self, kind: int, content: bytes) -> None:
        packet = struct.pack(">BBHHBB", kind, 1, len(content) + 8, 0, 1, 0) + content
        if self._tls is None:
            self._connection.sendall(packet)
            return
        engine, _, out = self._tls
        engine.write(packet)
        self._connection.sendall(out.read())

    def start_tls(self, context: ssl.SSLContext) -> None:
        """The handshake travels inside PRELOGIN packets, what follows does not."""
        inward, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = context.wrap_bio(inward, out, server_side=True)
        while True:
            try:
                engine.do_handshake()
                break
            except ssl.SSLWantReadError:
                if out.pending:
                    self.write_packet(PRELOGIN, out.read())
                inward.write(self.read_packet()[1])
        if out.pending:
            self.write_packet(PRELOGIN, out.read())
        self._tls = (engine, inward, out)

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += self._read_some(size - len(found))
        return found

    def _read_some(self, size: int) -> bytes:
        if self._tls is None:
            return self._receive(size)
        engine, inward, _ = self._tls
        while True:
            try:
                return engine.read(size)
            except ssl.SSLWantReadError:
                inward.write(self._receive(65536))

    def _receive(self, size: int) -> bytes:
        part = self._connection.recv(size)
        if not part:
            raise EOFError
        return part


def _short_text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode("utf-16-le")


def _type_info(cells: Sequence[Cell]) -> bytes:
    known = [cell for cell in cells if cell is not None]
    if known and all(isinstance(cell, bool) for cell in known):
        return b"\x68\x01"  # BITN
    if known and all(isinstance(cell, int) for cell in known):
        return b"\x26\x08"  # INTN, 8 bytes
    return b"\xe7" + struct.pack("<H", 8000) + bytes(5)  # NVARCHAR, no collation


def _write_cell(cell: Cell, kind: bytes) -> bytes:
    if kind[0] == 0xE7:
        if cell is None:
            return b"\xff\xff"
        encoded = str(cell).encode("utf-16-le")
        return struct.pack("<H", len(encoded)) + encoded
    if cell is None:
        return b"\x00"
    return b"\x01" + bytes([int(cell)]) if kind[0] == 0x68 else b"\x08" + struct.pack("<q", int(cell))


def _write_rows(found: Rows) -> bytes:
    kinds = [_type_info([row[place] for row in found.rows]) for place in range(len(found.columns))]
    told = b"\x81" + struct.pack("<H", len(kinds))
    for name, kind in zip(found.columns, kinds, strict=True):
        told += struct.pack("<IH", 0, 9) + kind + _short_text(name)
    for row in found.rows:
        told += b"\xd1" + b"".join(_write_cell(cell, kind) for cell, kind in zip(row, kinds, strict=True))
    return told


def _write_error(refusal: Refusal) -> bytes:
    words = refusal.words.encode("utf-16-le")
    body = struct.pack("<iBB", refusal.number, 1, 14) + struct.pack("<H", len(refusal.words)) + words
    body += _short_text("FAKE") + _short_text("") + struct.pack("<i", 1)
    return b"\xaa" + struct.pack("<H", len(body)) + body


def _done(is_error: bool = False) -> bytes:
    return b"\xfd" + struct.pack("<HHQ", 2 if is_error else 0, 0, 0)


class FakeSqlServer:
    """Listens on a free loopback port until its `with` ends. login: what the login is refused with, None: nothing."""

    def __init__(
        self,
        answers: Mapping[str, Rows | Refusal],
        *,
        issued: Issued | None = None,
        login: Refusal | None = None,
    ) -> None:
        self.answers, self._login = dict(answers), login
        self.statements: list[str] = []
        self.logins = 0
        self._context = None
        if issued is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(issued.certificate, issued.key)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def port(self) -> int:
        port: int = self._listening.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """As one that lost its power."""
        for one in (self._listening, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._guard, args=(self._serve, connection), daemon=True).start()

    @staticmethod
    def _guard(serve: Callable[[socket.socket], None], connection: socket.socket) -> None:
        """A client that leaves, or does not trust us, ends its own connection only."""
        try:
            serve(connection)
        except (OSError, EOFError):
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        wire = _Wire(connection)
        while True:
            kind, content = wire.read_packet()
            if kind == PRELOGIN:
                wire.write_packet(RESPONSE, self._prelogin())
                if self._context is not None:
                    wire.start_tls(self._context)
            elif kind == LOGIN7:
                self.logins += 1
                wire.write_packet(RESPONSE, self._log_in())
            else:
                wire.write_packet(RESPONSE, self._answer(content.decode("utf-16-le", "replace")))

    def _prelogin(self) -> bytes:
        encryption = ENCRYPT_NOT_SUPPORTED if self._context is None else ENCRYPT_ON
        offset = 11
        options = struct.pack(">BHH", 0, offset, 6) + struct.pack(">BHH", 1, offset + 6, 1) + b"\xff"
        return options + struct.pack(">LH", 0x10000000, 0) + bytes([encryption])

    def _log_in(self) -> bytes:
        if self._login is not None:
            return _write_error(self._login) + _done(is_error=True)
        database = b"\x01" + _short_text("master") + _short_text("")
        changed = b"\xe3" + struct.pack("<H", len(database)) + database
        body = b"\x01" + struct.pack(">I", 0x74000004) + _short_text("Fake SQL Server") + b"\x10\x00\x00\x00"
        return b"\xad" + struct.pack("<H", len(body)) + body + changed + _done()

    def _answer(self, statement: str) -> bytes:
        self.statements.append(statement)
        found = next((answer for words, answer in self.answers.items() if words in statement), None)
        if isinstance(found, Rows):
            return _write_rows(found) + _done()
        refusal = found or Refusal(208, f"Invalid object name in: {statement[:60]}")
        return _write_error(refusal) + _done(is_error=True)
