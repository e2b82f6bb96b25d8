"""What goes wrong between us and an agent: one kind and one sentence each, with the target, what was tried and what to do."""

from collections.abc import Sequence
from enum import Enum

from agent.errors import SourceError
from agent.foreign_words import explain_system
from agent.language import say

MOST_NAMED = 8
"""So many tables that were not read are named; how many they are is told always."""


class NoAnswer(SourceError):
    """Nobody answers, or nobody whom we may understand: unreachable, filtered, a wrong community, a dead device."""


class Refused(SourceError):
    """The agent answers and refuses our v3 user, key or level."""


class EndlessWalk(SourceError):
    """A table gives rows that it gave before, or more than any table has."""


class AgentTrouble(SourceError):
    """The agent answers with an error status; without this a broken table would look like an empty one."""


class Silence(Enum):
    """What is known about why nothing came."""

    COMMUNITY = "community"
    V3 = "v3"
    ENCRYPTED = "encrypted"
    CLOSED_PORT = "closed port"
    GARBAGE = "garbage"


_STATUS = {
    1: "tooBig",
    2: "noSuchName",
    3: "badValue",
    4: "readOnly",
    5: "genErr",
    6: "noAccess",
    16: "authorizationError",
}
"""RFC 3416 3: what an agent may complain of; the others belong to writing."""


def explain_silence(why: Silence, where: str, kind: str, milliseconds: int, attempts: int) -> str:
    """Nothing came in so many milliseconds; kind: the version or user that asked."""
    if why is Silence.GARBAGE:
        return say(
            f"{where}：{milliseconds} 毫秒内只收到不是 SNMP 的数据；请核对端口",
            f"{where}: only bytes that are no SNMP in {milliseconds} ms; check the port",
        )
    if why is Silence.CLOSED_PORT:
        return say(
            f"{where}：该端口无人监听({milliseconds} 毫秒内试了 {attempts} 次)；请启用设备的 SNMP 或核对端口",
            f"{where}: nobody listens on that port ({attempts} attempts in {milliseconds} ms); enable SNMP on the device or check the port",
        )
    if why is Silence.ENCRYPTED:
        return say(
            f"{where}：{kind} 应答引擎发现，但不应答加密的请求({milliseconds} 毫秒)；请核对 priv 与 priv_password",
            f"{where}: {kind} answers discovery but no encrypted question in {milliseconds} ms; check priv and priv_password",
        )
    what = ("地址、访问控制及 SNMPv3", "address, access lists and SNMPv3")
    if why is Silence.COMMUNITY:
        what = ("地址、团体字与访问控制", "address, community and access lists")
    return say(
        f"{where}：{kind} {milliseconds} 毫秒内无应答(已试 {attempts} 次)；请核对{what[0]}",
        f"{where}: {kind} no answer in {milliseconds} ms ({attempts} attempts); check {what[1]}",
    )


def explain_refusal(where: str, kind: str, milliseconds: int) -> str:
    """The agent knows us not, or not on this level."""
    return say(
        f"{where}：设备在 {milliseconds} 毫秒后拒绝 {kind}；请核对用户、auth、auth_password 与安全级别",
        f"{where}: the device refuses {kind} after {milliseconds} ms; check user, auth, auth_password and the security level",
    )


def explain_unsendable(where: str, error: OSError) -> str:
    """Our own system cannot send there."""
    why = explain_system(error)
    return say(f"{where}：发不出去({why})；请核对地址与路由", f"{where}: cannot send ({why}); check address and routes")


def explain_unresolved(host: str, error: OSError, milliseconds: int) -> str:
    """A name without an address."""
    why = explain_system(error)
    return say(
        f"{host}：{milliseconds} 毫秒内无法解析主机名({why})；请核对名称与 DNS，或改写地址",
        f"{host}: the name does not resolve ({why}, {milliseconds} ms); check the name and DNS, or write its address",
    )


def explain_status(where: str, status: int) -> str:
    """The agent complains."""
    name = _STATUS.get(status, str(status))
    return say(f"{where}：设备以错误 {name} 应答", f"{where}: the device answers with the error {name}")


def explain_endless(where: str, column: str, rows: int) -> str:
    """A walk that goes in circles."""
    return say(
        f"{where}：表列 {column} 在 {rows} 行后不再前进，已停止遍历",
        f"{where}: the walk of {column} does not advance after {rows} rows and was stopped",
    )


def explain_late(where: str, budget_seconds: float, at: str, missing: Sequence[str]) -> str:
    """A round whose time was up at table `at` ("" before the first). missing: the tables that were not read whole."""
    text = say(
        f"{where}：{budget_seconds:g} 秒内没有读完，读到 {at or '-'}",
        f"{where}: not read within {budget_seconds:g} s, it was at {at or '-'}",
    )
    if not missing:
        return text
    names = ", ".join(missing[:MOST_NAMED]) + (" …" if len(missing) > MOST_NAMED else "")
    return text + say(f"；缺 {len(missing)} 张表：{names}", f"; {len(missing)} tables are missing: {names}")
