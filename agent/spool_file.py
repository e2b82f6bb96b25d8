"""The spool's SQLite file: opened when needed, private to one process, its troubles told in one sentence."""

import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.errors import SpoolError
from agent.foreign_words import explain_system
from agent.language import say

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
logger = logging.getLogger(__name__)

PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24
"""What a page takes in the write-ahead log."""
_VERSION = 1
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_IN_USE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_TROUBLES = (*_DAMAGED, *_UNWRITABLE, *_IN_USE, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
"""Result codes that are the world's doing; any other is a bug and flies."""

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS batch (
    made_at INTEGER PRIMARY KEY, boot TEXT NOT NULL, seq INTEGER NOT NULL, points INTEGER NOT NULL,
    metrics BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS batch_identity ON batch (boot, seq, points);
CREATE TABLE IF NOT EXISTS loss (
    id INTEGER PRIMARY KEY, boot TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    points INTEGER NOT NULL, is_announced INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS ledger (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    last_made_at INTEGER NOT NULL DEFAULT 0, announced_at INTEGER NOT NULL DEFAULT 0,
    made_batches INTEGER NOT NULL DEFAULT 0, made_points INTEGER NOT NULL DEFAULT 0,
    applied_batches INTEGER NOT NULL DEFAULT 0, applied_points INTEGER NOT NULL DEFAULT 0,
    set_aside_batches INTEGER NOT NULL DEFAULT 0, set_aside_points INTEGER NOT NULL DEFAULT 0,
    dropped_batches INTEGER NOT NULL DEFAULT 0, dropped_points INTEGER NOT NULL DEFAULT 0,
    began_at INTEGER, closings INTEGER NOT NULL DEFAULT 0
);
INSERT OR IGNORE INTO ledger (id) VALUES (1);
PRAGMA user_version = 1;
COMMIT;
"""

_ACCOUNT = """
BEGIN IMMEDIATE;
ALTER TABLE ledger ADD COLUMN began_at INTEGER;
ALTER TABLE ledger ADD COLUMN closings INTEGER NOT NULL DEFAULT 0;
COMMIT;
"""
"""What a file of the first version lacks. An older program passes over both, so the version stays."""


class SpoolFile:
    """Runs one piece of work at a time on the file; the caller holds the lock.

    After any trouble the connection is closed and opened again at the next call, so that space that returns is enough
    to recover. A damaged file is moved aside as `<name>.damaged` (the last one is kept) and a new one begun.
    """

    def __init__(self, path: Path, log_pages: int) -> None:
        self.path = path
        self._log_pages = log_pages
        self._connection: sqlite3.Connection | None = None

    def read(self, work: Work[T]) -> T:
        """What `work` gives. Raises SpoolError."""
        return self._run(work)

    def write(self, work: Work[T], *, is_durable: bool) -> T:
        """What `work` gives, in one transaction; is_durable: on the disk's platter when this returns."""

        def transaction(connection: sqlite3.Connection) -> T:
            # in WAL both survive kill -9; FULL also survives the power going, at the price of one fsync
            connection.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("COMMIT")
            return result

        return self._run(transaction)

    def close(self) -> None:
        """Fold the log into the file and let go of it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, work: Work[T]) -> T:
        try:
            return self._try_twice(work)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _TROUBLES:
                raise
            raise SpoolError(self._explain(error)) from error

    def _try_twice(self, work: Work[T]) -> T:
        try:
            return self._attempt(work)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGED:
                raise
            self._move_aside(error)
            return self._attempt(work)

    def _attempt(self, work: Work[T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._open()
            return work(self._connection)
        except BaseException as error:
            self._give_up(error)
            raise

    def _give_up(self, error: BaseException) -> None:
        """Undo what was begun. On a full disk the connection stays: its log may still have the room to settle in."""
        if self._connection is not None and _code(error) == sqlite3.SQLITE_FULL:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        else:
            self.close()

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            os.close(descriptor)
            self.path.chmod(0o600)  # the log inherits it
        except OSError as error:
            text = say(
                f"缓存 {self.path} 无法打开({explain_system(error)})；请检查目录权限与磁盘空间，或在配置中另写 state_directory",
                f"cannot open the spool {self.path} ({explain_system(error)}); check the folder's permissions and the disk, or set state_directory",
            )
            raise SpoolError(text) from error
        connection = sqlite3.connect(self.path, timeout=1, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # two agents on one spool would send everything twice
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            text = say(
                f"缓存 {self.path} 的版本是 {version}，本程序只认识 {_VERSION}；请升级本程序或移走该文件",
                f"the spool {self.path} is of version {version}, this program knows {_VERSION}; upgrade or move it away",
            )
            raise SpoolError(text)
        if version == 0:  # only then: on an existing file these two write, which a full disk refuses
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {self._log_pages}")
        connection.execute(f"PRAGMA journal_size_limit = {self._log_pages * FRAME_BYTES}")
        connection.execute("PRAGMA cache_size = -512")
        if version == 0:
            connection.executescript(_SCHEMA)
        elif not connection.execute("SELECT 1 FROM pragma_table_info('ledger') WHERE name = 'closings'").fetchone():
            connection.executescript(_ACCOUNT)

    def _move_aside(self, error: sqlite3.Error) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged")
        try:
            self.path.replace(aside)
            for log in (Path(f"{self.path}-wal"), Path(f"{self.path}-journal")):
                log.unlink(missing_ok=True)
        except OSError as second:
            raise SpoolError(self._explain(error)) from second
        logger.error(
            say(
                "缓存 %s 已损坏(%s)，已移到 %s 并新建；其中未确认的数据没有送出",
                "the spool %s is damaged (%s); it was moved to %s and a new one begun; what waited in it was not sent",
            ),
            self.path,
            error,
            aside,
        )

    def _explain(self, error: sqlite3.Error) -> str:
        where, code = self.path, _code(error)
        if code == sqlite3.SQLITE_FULL:
            return say(
                f"缓存 {where} 所在磁盘已满，新数据无法保存；腾出空间后自动恢复",
                f"the disk of the spool {where} is full, new data cannot be kept; free some space, it recovers by itself",
            )
        if code in _IN_USE:
            return say(
                f"缓存 {where} 正被另一个进程使用；每个采集代理要有自己的缓存，请停掉那个进程，或在配置中另写 state_directory",
                f"the spool {where} is in use by another process; end that one, or give each agent its own state_directory",
            )
        if code in _UNWRITABLE:
            return say(
                f"缓存 {where} 不可写；请检查权限与挂载，或在配置中另写 state_directory",
                f"the spool {where} cannot be written; check its permissions and the mount, or set state_directory",
            )
        return say(
            f"缓存 {where} 读写失败({error})，请检查磁盘",
            f"reading or writing the spool {where} failed ({error}); check the disk",
        )


def _code(error: BaseException) -> int:
    """SQLite's primary result code; 0 when it is none of SQLite's errors."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def used_pages(connection: sqlite3.Connection) -> int:
    """Pages of the file that hold something."""
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return pages - free


def shrink(connection: sqlite3.Connection) -> None:
    """Give pages back to the file system when three quarters of a file that had grown stand empty."""
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    if free > 256 and free > 3 * used_pages(connection):
        connection.executescript("PRAGMA incremental_vacuum(1024)")  # frees as it is stepped, and execute() steps once
