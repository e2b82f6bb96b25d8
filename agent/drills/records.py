"""What is kept of a drill: a record and its token log side by side in a folder, so that anyone can count again.

`ID.tokens.jsonl` has a line per token; `ID.json` the figures and the log's SHA-256; `ID.running` stands there while it lasts,
and outlives a drill that was killed: whether one is on, its log tells too;
`ID.reported` once the running agent has sent it to the collector.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.continuity.outages import Outage, OutageWatch, Rule
from agent.continuity.tokens import Token
from agent.errors import SourceError
from agent.foreign_words import explain, explain_system
from agent.language import say

SILENT_SECONDS = 60.0
"""A drill whose log has got no token for so long was killed; what follows is none of its."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures of one drill. Times are seconds since the epoch. rpo_seconds, lost: None where no tokens are kept.

    outages: every one that the log shows under `rule`. rto_seconds: the longest of them.
    """

    drill: str
    service: str
    probe: str
    began_at: float
    ended_at: float
    people: tuple[str, ...]
    plan_digest: str
    token_log_digest: str
    rule: Rule
    outages: tuple[Outage, ...]
    sent: int
    acknowledged: int
    rto_seconds: float | None
    rpo_seconds: float | None
    lost: tuple[int, ...] | None
    is_passed: bool
    is_aborted: bool
    is_automatic: bool | None
    remark: str = ""


class Running(msgspec.Struct, frozen=True):
    """A drill that is on."""

    service: str
    began_at: float


class TokenLog:
    """Appends tokens as they settle; a line each."""

    def __init__(self, folder: Path, drill: str, service: str, began_at: float) -> None:
        self._folder, self._drill = folder, drill
        is_new = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # an id that is taken is refused here, before anything says that its drill is on
            self._file = (folder / f"{drill}.tokens.jsonl").open("xb", buffering=0)
            is_new = True
            (folder / f"{drill}.running").write_bytes(msgspec.json.encode(Running(service, began_at)))
            give_to_owner(folder)
        except FileExistsError as error:
            text = say(
                f"已有名为 {drill} 的演练，请另取编号", f"there is a drill {drill} already; give this one another id"
            )
            raise SourceError(text) from error
        except OSError as error:
            if is_new:  # its id may be used again once there is room
                self.discard()
            raise _explain_unwritten(folder, error) from error

    def add(self, token: Token) -> None:
        """One more token."""
        self._file.write(msgspec.json.encode(token) + b"\n")

    def close(self) -> str:
        """The SHA-256 of the whole log, in hexadecimal."""
        self._file.close()
        return digest_log(self._folder, self._drill)

    def finish(self, record: Record) -> None:
        """Write the record beside the log; the drill is over."""
        file = self._folder / f"{self._drill}.json"
        try:
            file.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        except OSError as error:
            file.unlink(missing_ok=True)  # half a record is none
            raise _explain_unwritten(self._folder, error) from error
        give_to_owner(self._folder)
        self.give_up()

    def discard(self) -> None:
        """It never began: nothing is left, and its id may be used again."""
        self.give_up()
        (self._folder / f"{self._drill}.tokens.jsonl").unlink(missing_ok=True)

    def give_up(self) -> None:
        """The drill is not on any more."""
        self._file.close()
        (self._folder / f"{self._drill}.running").unlink(missing_ok=True)


def _explain_unwritten(folder: Path, error: OSError) -> SourceError:
    return SourceError(
        say(
            f"无法写入 {folder}：{explain_system(error)}；请核对磁盘空间与权限，以采集代理的用户或 root 运行",
            f"cannot write to {folder}: {explain_system(error)}; look at its room and rights, and run as the agent's user or as root",
        )
    )


def give_to_owner(folder: Path) -> None:
    """What root wrote into the agent's state directory goes to whom that belongs: the agent notes there what it has told."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return
    owner = folder.parent.stat()
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def digest_log(folder: Path, drill: str) -> str:
    """SHA-256 of a drill's token log. Raises OSError."""
    return hashlib.sha256((folder / f"{drill}.tokens.jsonl").read_bytes()).hexdigest()


def read_records(folder: Path) -> list[Record]:
    """All finished drills, the oldest first; a record that cannot be read is left out."""
    return sorted(_read_all(folder), key=lambda record: record.began_at)


def _read_all(folder: Path) -> Iterator[Record]:
    for file in folder.glob("*.json"):
        try:
            yield msgspec.json.decode(file.read_bytes(), type=Record)
        except (OSError, msgspec.DecodeError):
            continue


def read_tokens(folder: Path, drill: str) -> list[Token]:
    """The token log of a drill. Raises OSError, msgspec.DecodeError."""
    lines = (folder / f"{drill}.tokens.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Token) for line in lines]


def find_unfinished(folder: Path) -> list[str]:
    """Drills that have a token log and no record: killed, out of room, or still on."""
    return sorted(
        name
        for file in folder.glob("*.tokens.jsonl")
        if not (folder / f"{(name := file.name.removesuffix('.tokens.jsonl'))}.json").exists()
    )


def find_doubts(folder: Path, record: Record) -> list[str]:
    """What of a record does not follow from its token log; empty when it all does."""
    try:
        if digest_log(folder, record.drill) != record.token_log_digest:
            return [say("令牌日志已被改动：摘要不符", "the token log was changed: its digest differs")]
        tokens = read_tokens(folder, record.drill)
    except (OSError, msgspec.DecodeError) as error:
        return [say(f"令牌日志读不出：{explain(error)}", f"the token log cannot be read: {explain(error)}")]
    doubts = []
    if replay(tokens, record.rule) != record.outages:
        doubts.append(say("按令牌日志重算，中断与记录不符", "the outages are not those that the token log gives"))
    if (len(tokens), sum(token.is_good for token in tokens)) != (record.sent, record.acknowledged):
        doubts.append(say("令牌数与日志不符", "the count of tokens is not the log's"))
    return doubts


def replay(tokens: list[Token], rule: Rule) -> tuple[Outage, ...]:
    """The outages that a log shows, in whatever order its tokens stand."""
    watch = OutageWatch(rule)
    if tokens:
        watch.skip_to(min(token.number for token in tokens))
    return tuple(outage for token in tokens for outage in watch.take(token))


def is_in_drill(folder: Path, service: str, at: float) -> bool:
    """Whether a drill of `service` was or is on at that time."""
    if any(record.service == service and record.began_at <= at <= record.ended_at for record in _read_all(folder)):
        return True
    for file in folder.glob("*.running"):
        try:
            running = msgspec.json.decode(file.read_bytes(), type=Running)
            told_at = file.with_suffix(".tokens.jsonl").stat().st_mtime
        except (OSError, msgspec.DecodeError):
            continue
        if running.service == service and running.began_at <= at <= told_at + SILENT_SECONDS:
            return True
    return False
