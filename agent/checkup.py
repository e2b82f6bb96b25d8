"""What a doctor finds: findings, checks under a deadline, and those of this machine: clock, disk, secrets, versions."""

import asyncio
import platform
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec

from agent.broker import Broker, Secret
from agent.errors import InfravitalsError, LinkError, NoData, SourceError
from agent.foreign_words import explain_system
from agent.language import say
from agent.sources import Command, Surroundings, host_clock, run_command

State = Literal["good", "note", "bad"]

DEADLINE_SECONDS = 30.0
"""For each check; they run beside each other."""
MOST_OFFSET_SECONDS = 5.0
LEAST_FREE_RATIO = 0.1
LEAST_FREE_BYTES = 2**30
MEBIBYTE = 2**20


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. note: nobody can tell, or no trouble yet. mend: the command that mends it, or empty."""

    check: str
    state: State
    text: str
    mend: str = ""


class Trouble(InfravitalsError):
    """A check cannot go on. mend: the command that mends it."""

    def __init__(self, text: str, mend: str) -> None:
        super().__init__(text)
        self.mend = mend


Check = Callable[[], Iterable[Finding]]


def run_checks(checks: Sequence[tuple[str, Check]], deadline_seconds: float = DEADLINE_SECONDS) -> list[Finding]:
    """The findings of all checks in their order; one that hangs or breaks off is a finding too, and delays nobody."""
    found: list[list[Finding]] = [[] for _ in checks]

    ended: set[str] = set()

    def run(name: str, check: Check, findings: list[Finding]) -> None:
        try:
            findings.extend(check())
        except InfravitalsError as error:
            findings.append(Finding(name, "bad", str(error), error.mend if isinstance(error, Trouble) else ""))
        ended.add(name)

    threads = [
        threading.Thread(target=run, args=(name, check, findings), name=name, daemon=True)
        for (name, check), findings in zip(checks, found, strict=True)
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + deadline_seconds
    for thread, findings in zip(threads, found, strict=True):
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            text = say(f"{deadline_seconds:g} 秒内没有结果", f"no result within {deadline_seconds:g} s")
            findings.append(Finding(thread.name, "bad", text))
        elif thread.name not in ended:
            # a bug of ours, its traceback stands on stderr: never a check that is just not there
            text = say("这一项检查没有做完，是程序的错误", "this check broke off: a fault of the program")
            findings.append(Finding(thread.name, "bad", text))
    return [finding for findings in found for finding in list(findings)]


def render(findings: Sequence[Finding]) -> str:
    """Trouble and all the rest, a line each, with the command that mends it below."""
    marks = {"good": "✓", "note": "·", "bad": "✗"}
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{marks[finding.state]} {finding.check}: {finding.text}")
        lines += [f"    → {line}" for line in finding.mend.splitlines()]
    bad = sum(finding.state == "bad" for finding in findings)
    lines.append(
        say(f"{bad} 处需要处理", f"{bad} things to mend") if bad else say("没有发现问题", "nothing found wrong")
    )
    return "\n".join(lines)


def render_json(findings: Sequence[Finding]) -> str:
    """The same as a JSON document."""
    body = {"is_well": is_well(findings), "findings": findings}
    return msgspec.json.format(msgspec.json.encode(body), indent=2).decode()


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether nothing has to be mended."""
    return all(finding.state != "bad" for finding in findings)


def check_versions() -> Iterator[Finding]:
    """What runs here."""
    text = f"infravitals {version('infravitals')}, Python {platform.python_version()}, {platform.system()} {platform.release()}"
    yield Finding("version", "good", text)


def check_clock(command: Command = run_command) -> Iterator[Finding]:
    """Against this machine's own time service, which `command` asks."""
    source = host_clock.Source(host_clock.Config(deadline_seconds=20.0), Surroundings("doctor", command=command))
    mend = "apt-get install chrony && systemctl enable --now chrony"
    try:
        (reading,) = asyncio.run(source.collect())
    except (NoData, SourceError) as error:
        text = say(f"时钟偏差无从得知：{error}", f"nobody can tell whether the clock is right: {error}")
        yield Finding("clock", "note", text, mend)
        return
    offset = reading.fields.get("offset_seconds")
    if not reading.fields["is_synchronised"]:
        yield Finding(
            "clock", "bad", say("时钟没有校准", "the clock is not synchronised"), "chronyc sources -v; chronyc makestep"
        )
    elif not isinstance(offset, float):
        yield Finding("clock", "good", say("时钟已校准，偏差未知", "the clock is synchronised, its offset is not told"))
    elif abs(offset) > MOST_OFFSET_SECONDS:
        text = say(f"时钟偏差 {offset:+.3f} 秒", f"the clock is off by {offset:+.3f} s")
        yield Finding("clock", "bad", text, "chronyc makestep")
    else:
        yield Finding("clock", "good", say(f"时钟偏差 {offset:+.6f} 秒", f"the clock is off by {offset:+.6f} s"))


def check_disk(folder: Path, needed_bytes: int = LEAST_FREE_BYTES) -> Iterator[Finding]:
    """Whether the file system of `folder` (or of its nearest parent that is there) has room."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    usage = shutil.disk_usage(there)
    text = say(
        f"{there} 剩余 {usage.free // MEBIBYTE} MiB({usage.free / usage.total:.0%})",
        f"{there} has {usage.free // MEBIBYTE} MiB free ({usage.free / usage.total:.0%})",
    )
    if usage.free >= needed_bytes and usage.free >= LEAST_FREE_RATIO * usage.total:
        yield Finding("disk", "good", text)
        return
    wanted = say(
        f"，至少要 {needed_bytes // MEBIBYTE} MiB 且 10%", f"; {needed_bytes // MEBIBYTE} MiB and 10% are wanted"
    )
    state: State = "bad" if usage.free < needed_bytes else "note"
    yield Finding("disk", state, text + wanted, f"du -xh --max-depth=2 {there} | sort -h | tail")


def secret_files(broker: Broker) -> Iterator[Path]:
    """Files that nobody else may read."""
    if broker.password is not None and broker.password.file is not None:
        yield Path(broker.password.file)
    if broker.tls is not None and broker.tls.key is not None:
        yield Path(broker.tls.key)


def check_secrets(broker: Broker, folders: Iterable[Path] = (), more: Iterable[Path] = ()) -> Iterator[Finding]:
    """Whether secrets can be read by us and by nobody else.

    folders: where data lie that others have no business with. more: files with secrets beside the broker's.
    """
    if broker.password is not None and broker.password.file is None:
        yield _check_handed(broker.password)
    for path in (*secret_files(broker), *more):
        try:
            with path.open("rb"):
                mode = stat.S_IMODE(path.stat().st_mode)
        except OSError as error:
            text = say(f"无法读取 {path}：{explain_system(error)}", f"cannot read {path}: {explain_system(error)}")
            yield Finding("secrets", "bad", text, f"ls -l {path}; chown <user> {path}; chmod 600 {path}")
            continue
        yield _judge_mode(path, mode, f"chmod o= {path}")
    for folder in folders:
        if folder.is_dir():
            yield _judge_mode(folder, stat.S_IMODE(folder.stat().st_mode), f"chmod o= {folder}")


def _check_handed(secret: Secret) -> Finding:
    """A secret that whoever starts the program hands over: a shell has it only when it is handed over there too."""
    try:
        secret.read()
    except LinkError as error:
        hand = (
            f"systemd-run --pipe -p LoadCredential={secret.credential}:<file>"
            if secret.credential
            else f"env {secret.env}=…"
        )
        text = say(f"{error}；请像服务那样把它交给本命令", f"{error}; hand it to this command as to the service")
        return Finding("secrets", "note", text, f"{hand} {Path(sys.argv[0]).name} doctor …")
    return Finding("secrets", "good", say("密码由启动者交来，可以读到", "the secret is handed over and can be read"))


def _judge_mode(path: Path, mode: int, mend: str) -> Finding:
    if mode & stat.S_IRWXO:
        return Finding(
            "secrets",
            "bad",
            say(f"任何人都能读 {path}(权限 {mode:o})", f"anyone may read {path} (mode {mode:o})"),
            mend,
        )
    return Finding("secrets", "good", say(f"{path} 只有属主和组能读", f"{path} is for its owner and group alone"))
