"""The one door to DuckDB: statements in, rows and numpy columns out, its errors translated."""

import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
from numpy.typing import NDArray

from agent.errors import StoreError
from agent.language import say

MEMORY = ":memory:"

Parameters = Sequence[object]


class Connection:
    """A connection, or a cursor of it. A cursor may live in another thread; one object serves one thread only.

    Every call raises StoreError when the database is away, full, damaged or refuses; a statement that is wrong is our
    own bug and flies as DuckDB's error.
    """

    def __init__(self, path: str, raw: duckdb.DuckDBPyConnection) -> None:
        self.path = path
        self._raw = raw

    @classmethod
    def open(cls, path: str, memory_bytes: int) -> Self:
        """Opens or makes the file. One thread: with two, sums of fractions change from run to run."""
        with _explained(path):
            raw = duckdb.connect(
                path,
                config={
                    "threads": 1,
                    "memory_limit": f"{memory_bytes}B",
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                    "checkpoint_threshold": "64MB",  # 16 MB, the default, stalls writers more often and packs worse
                },
            )
        return cls(path, raw)

    def close(self) -> None:
        """Gives the file back; the last one to close also writes the log into it."""
        with _explained(self.path):
            self._raw.close()

    def run(self, sql: str, parameters: Parameters = ()) -> None:
        """A statement whose rows nobody wants."""
        with _explained(self.path):
            self._raw.execute(sql, parameters)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; for few."""
        with _explained(self.path):
            return self._raw.execute(sql, parameters).fetchall()

    def columns(self, sql: str, parameters: Parameters = ()) -> dict[str, NDArray[Any]]:
        """The columns of a query; for many rows of numbers. A null in a float column is NaN."""
        with _explained(self.path):
            found = self._raw.execute(sql, parameters).fetchnumpy()
        return {name: np.ma.filled(values, np.nan) if np.ma.isMA(values) else values for name, values in found.items()}

    def insert(self, table: str, incoming: Mapping[str, NDArray[Any]]) -> None:
        """All rows of `incoming` (column -> values of one length) in bulk; columns it lacks become null."""
        names = ", ".join(f'"{name}"' for name in incoming)
        with _explained(self.path):
            # DuckDB finds the argument `incoming` by its name: that saves a statement that registers it, 0.3 ms each
            self._raw.execute(f"INSERT INTO {table} ({names}) SELECT * FROM incoming")  # noqa: S608  # names are checked

    def insert_from(self, query: str, table: str, incoming: Mapping[str, NDArray[Any]]) -> None:
        """All rows of `query` in bulk, which reads what comes in as the table `incoming`."""
        with _explained(self.path):
            self._raw.execute(f"INSERT INTO {table} {query}")  # both are our own words

    def delete(self, table: str, incoming: Mapping[str, NDArray[Any]]) -> None:
        """The rows of `table` that agree with a row of `incoming` in all its columns, in bulk."""
        agree = " AND ".join(f'{table}."{name}" = incoming."{name}"' for name in incoming)
        with _explained(self.path):
            self._raw.execute(f"DELETE FROM {table} USING incoming WHERE {agree}")  # noqa: S608  # names are checked

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; when it ends without an error the rows are safe against kill -9."""
        with _explained(self.path):
            self._raw.begin()
        try:
            yield
            with _explained(self.path):
                self._raw.commit()
        except BaseException:
            # a commit that failed has ended its transaction already: nothing is left to roll back then
            with suppress(duckdb.Error):
                self._raw.rollback()
            raise

    def copy_to(self, path: str) -> None:
        """Everything as of now into a new file, in the order in which it lies here; writes go on beside it."""
        target = path.replace("'", "''")
        with _explained(path):
            cursor = self._raw.cursor()
            try:
                [(own,)] = cursor.execute("SELECT current_database()").fetchall()
                cursor.execute(f"ATTACH '{target}' AS saved_copy")
                try:
                    cursor.execute(f'COPY FROM DATABASE "{own}" TO saved_copy')
                finally:
                    cursor.execute("DETACH saved_copy")
            finally:
                cursor.close()

    @contextmanager
    def snapshot(self) -> Iterator["Connection"]:
        """A cursor for reading, also from another thread: all its queries see the same moment, writes go on beside it."""
        with _explained(self.path):
            cursor = Connection(self.path, self._raw.cursor())
        try:
            with cursor.transaction():
                yield cursor
        finally:
            cursor.close()


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (
        duckdb.CatalogException,
        duckdb.DataError,
        duckdb.IntegrityError,
        duckdb.NotSupportedError,
        duckdb.ProgrammingError,
    ):
        raise  # a wrong statement: ours to mend
    except duckdb.Error as error:
        raise StoreError(_explain(path, str(error))) from error


_HOLDER = re.compile(r"lock is held in (?P<program>.*?) ?\(PID (?P<pid>\d+)\)")


def _explain(path: str, text: str) -> str:
    """DuckDB's complaint as one sentence: where, what was found, what to do."""
    if "Could not set lock" in text:
        return f"{path}: {_explain_lock(text)}"
    for found, zh, en in _COMPLAINTS:
        if found in text:
            return f"{path}: {say(zh, en)}"
    first = text.splitlines()[0] if text else "?"
    return f"{path}: {say(f'数据库拒绝：{first}', f'the database refuses: {first}')}"


def _explain_lock(text: str) -> str:
    holder = _HOLDER.search(text)
    if holder is None:
        return say(
            "数据库文件正被另一个进程占用；请停止它，或由它代为查询",
            "another process holds the database file; stop it, or ask it instead",
        )
    name, pid = Path(holder["program"]).name, holder["pid"]
    return say(
        f"数据库文件正被进程 {pid}({name})占用；请停止它，或由它代为查询",
        f"process {pid} ({name}) holds the database file; stop it, or ask it instead",
    )


_DAMAGED = (
    "数据库文件已损坏；请从备份恢复，或把它移走后重新开始",
    "the database file is damaged; restore it from a backup, or move it away and start anew",
)
_COMPLAINTS: Sequence[tuple[str, str, str]] = (
    (
        os.strerror(errno.ENOSPC),
        "磁盘已满，什么都没有写入；请腾出空间",
        "the disk is full, nothing was written; make room",
    ),
    (
        os.strerror(errno.EACCES),
        "没有读写权限；请检查文件和目录的属主",
        "no permission to read and write; look at the owner of the file and its directory",
    ),
    (
        os.strerror(errno.EROFS),
        "文件系统是只读的；请换一个可写的目录",
        "the file system is read-only; choose a directory that can be written",
    ),
    (
        os.strerror(errno.ENOENT),
        "目录不存在；请先创建它",
        "the directory does not exist; make it first",
    ),
    (os.strerror(errno.EISDIR), "这是一个目录，需要的是文件名", "this is a directory; a file's name is wanted"),
    ("not a valid DuckDB database file", "这不是数据库文件；请检查路径", "this is no database file; look at the path"),
    ("Corrupt database", *_DAMAGED),
    ("checksum", *_DAMAGED),
    ("WAL file", *_DAMAGED),
    (
        "Out of Memory",
        "内存不足；请提高 memory_bytes 或缩短时间窗口",
        "out of memory; raise memory_bytes or ask for a shorter window",
    ),
)
"""What DuckDB's text holds, and what a person reads then; the first that fits."""
