"""`infravitals-agent doctor`: what keeps an agent from delivering, each with the command that mends it. It changes nothing."""

import contextlib
import shlex
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agent.broker_check import (
    NOBODY,
    Forbidden,
    check_broker,
    check_certificates,
)
from agent.checkup import (
    MEBIBYTE,
    Finding,
    check_clock,
    check_disk,
    check_secrets,
    check_versions,
    run_checks,
)
from agent.config import AgentConfig
from agent.foreign_words import explain
from agent.language import say
from agent.mqtt import own_broker
from agent.wire import Address, points_topic, receipt_topic

MOST_WAIT_SECONDS = 3600.0
MOST_COPIED_BYTES = 64 * MEBIBYTE
COPY_TRIES = 3
WAL_HEAD_BYTES = 32


def examine(config: AgentConfig, file: Path) -> list[Finding]:
    """Everything, beside a running agent: its session and its spool stay as they are."""
    broker = own_broker(config.broker, Address(config.site, config.agent))
    name = f"{config.site}-{config.agent}"
    forbidden = (
        Forbidden(
            points_topic(config.site, NOBODY),
            "可以冒充别的采集代理",
            "and can speak in another agent's name",
        ),
        Forbidden(
            receipt_topic(config.site, config.agent),
            "可以伪造回执，使数据被当作已入库而删除",
            "and can forge receipts, upon which data are deleted as if they were stored",
        ),
    )
    return run_checks(
        [
            ("version", check_versions),
            ("clock", check_clock),
            ("secrets", lambda: check_secrets(broker, [config.state_directory])),
            ("disk", lambda: check_disk(config.spool_path.parent, room_for_spool(config))),
            ("spool", lambda: check_spool(config.spool_path, file)),
            ("broker", lambda: check_broker(broker, name, forbidden)),
            ("certificates", lambda: check_certificates(broker)),
        ]
    )


def room_for_spool(config: AgentConfig) -> int:
    """What the spool may still grow, in bytes."""
    held = config.spool_path.stat().st_size if config.spool_path.exists() else 0
    return max(16 * MEBIBYTE, config.spool.max_bytes - held)


def check_spool(path: Path, file: Path) -> Iterator[Finding]:
    """Depth and age of the spool. A running agent holds it locked, so a copy of it is read."""
    start = f"infravitals-agent run -c {shlex.quote(str(file))}"
    if not path.exists():
        text = say(f"还没有缓存文件 {path}：采集代理尚未运行过", f"there is no spool {path} yet: the agent has not run")
        yield Finding("spool", "note", text, start)
        return
    try:
        with _readable(path) as spool:
            batches, oldest = spool.execute("SELECT count(*), min(made_at) FROM batch").fetchone()
            (newest,) = spool.execute("SELECT last_made_at FROM ledger").fetchone()
    except (sqlite3.Error, OSError) as error:
        text = say(
            f"此刻读不了缓存 {path}：{explain(error)}", f"cannot read the spool {path} at this moment: {explain(error)}"
        )
        yield Finding("spool", "note", text, f"ls -l {path}*")
        return
    yield _judge_spool(path, file, batches, oldest, newest)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[sqlite3.Connection]:
    """What the spool holds now; a large one as of its last checkpoint, which is a megabyte of log ago at most."""
    if path.stat().st_size > MOST_COPIED_BYTES:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as spool:
            yield spool
        return
    with tempfile.TemporaryDirectory(prefix="infravitals-doctor-") as folder:
        copy = Path(folder, "spool")
        _copy_together(path, copy)
        with contextlib.closing(sqlite3.connect(copy)) as spool:
            yield spool


def _copy_together(path: Path, copy: Path) -> None:
    """The file and its log, of one cycle of the log: its head changes when it is begun anew."""
    log = Path(f"{path}-wal")
    for _ in range(COPY_TRIES):
        head = _head(log)
        if log.exists():
            shutil.copyfile(log, f"{copy}-wal")
        shutil.copyfile(path, copy)
        if _head(log) == head:
            return


def _head(log: Path) -> bytes:
    if not log.exists():
        return b""
    with log.open("rb") as file:
        return file.read(WAL_HEAD_BYTES)


def _judge_spool(path: Path, file: Path, batches: int, oldest: int | None, newest: int) -> Finding:
    age = 0.0 if oldest is None else time.time() - oldest / 1000
    told = say(
        f"{path} 中 {batches} 批等待，最早的已 {age:.0f} 秒",
        f"{batches} batches wait in {path}, the oldest for {age:.0f} s",
    )
    if age > MOST_WAIT_SECONDS:
        text = told + say("：没有送达采集中心", ": they do not reach the collector")
        return Finding("spool", "bad", text, f"infravitals-agent check -c {shlex.quote(str(file))}")
    if time.time() - newest / 1000 > MOST_WAIT_SECONDS:
        text = told + say(
            "；一小时内没有新的数据，采集代理在运行吗?", "; nothing new within the hour, does the agent run?"
        )
        return Finding("spool", "note", text, "systemctl status infravitals-agent")
    return Finding("spool", "good", told)
