"""A doctor at the broker: TLS, login, certificates, and whether it forbids what it must. It writes nothing that anybody keeps."""

import asyncio
import os
import shlex
import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from agent.broker import Broker
from agent.certificates import certificates_of
from agent.checkup import Finding, Trouble
from agent.errors import LinkError, LoginRefused, NotAllowed
from agent.language import say
from agent.mqtt import PROBE, Connection, connect
from agent.wire import Receipt, encode_receipt

LEAST_DAYS = 30.0
NOBODY = "doctor-nobody"
"""An agent that does not exist."""
NOTHING = encode_receipt(Receipt("", [], []))
VISITS = 4
"""How often to log in until everything was tried: an agent that is cut off by us cuts us off when it comes back."""
Outcomes = dict[str, LinkError | None]
"""Topic -> what came of writing to it; None when it was let through."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
PASSWORDS = "/etc/mosquitto/infravitals.passwords"
"""Where a broker that was set up by hand has them, by docs/broker.md."""
_ACL = "deploy/mosquitto/infravitals.acl"


class Forbidden(NamedTuple):
    """A publish that the broker must refuse; zh, en: what it would mean if it did not."""

    topic: str
    zh: str
    en: str


def check_broker(broker: Broker, name: str, forbidden: tuple[Forbidden, ...]) -> Iterator[Finding]:
    """TLS and login, and then what the broker must forbid. name: whose doctor this is.

    Under a client id of its own. A broker that gives every user one id alone ends a running agent's session by that, and
    ours when the agent dials again a moment later: so all is done in one short session, and done again when it is cut off.
    """
    unknown = LinkError(say("没有应答", "no answer"))
    outcomes: Outcomes = {one.topic: unknown for one in forbidden}
    try:
        asyncio.run(_visit(broker, name, outcomes))
    except (LinkError, TimeoutError) as error:
        text = str(error) or say(f"{broker.where} 没有应答", f"{broker.where} does not answer")
        raise Trouble(text, _mend_login(broker, error)) from error
    who = broker.username or say("匿名", "nobody")
    yield Finding("broker", "good", say(f"{broker.where} 可登录(用户 {who})", f"{broker.where} lets user {who} in"))
    if broker.tls is None and broker.host not in _LOOPBACK:
        text = say(f"到 {broker.where} 的连接没有加密", f"the connection to {broker.where} is not encrypted")
        yield Finding("broker", "bad", text, "broker: {port: 8883, tls: {ca: …}}")
    yield _try_anonymous(broker, name)
    for one in forbidden:
        yield _judge_forbidden(broker, one, outcomes[one.topic])


def _mend_login(broker: Broker, error: Exception) -> str:
    """What lets this user in, to be run where the broker is; or what shows why nobody answers there."""
    if not isinstance(error, LoginRefused):
        port = broker.where.rpartition(":")[2]
        return f"nc -vz {broker.host} {port}\nssh {broker.host} systemctl status mosquitto"
    if broker.username is None:
        return "broker: {username: …, password: {file: …}}"
    return f"{_mend_on_site(broker.username)}\n{_mend_by_hand(broker.username)}"


def _mend_on_site(user: str) -> str:
    """The way of a site that `site init` made: a user is `site/agent`, the collector's has no agent."""
    agent = shlex.quote(user.rpartition("/")[2])
    command = (
        f"infravitals site remove-agent {agent} --dir <…>; infravitals site add-agent {agent} --dir <…>"
        if "/" in user
        else "infravitals site init --dir <…> --name <…>"
    )
    return f"{command}  # {say('由 site init 建的站点', 'where site init made the site')}"


def _mend_by_hand(user: str) -> str:
    command = f"mosquitto_passwd {PASSWORDS} {shlex.quote(user)} && systemctl reload mosquitto"
    return f"{command}  # {say('自己配置的消息服务器', 'where the broker was set up by hand')}"


def _try_anonymous(broker: Broker, name: str) -> Finding:
    tls = msgspec.structs.replace(broker.tls, certificate=None, key=None) if broker.tls else None
    stranger = msgspec.structs.replace(broker, username=None, password=None, tls=tls)
    try:
        asyncio.run(_dial(stranger, name))
    except (LinkError, TimeoutError):
        return Finding("anonymous", "good", say("不登录就进不来", "nobody comes in without a login"))
    text = say("消息服务器允许匿名登录，任何人都能连上", "the broker lets anybody in without a login")
    return Finding("anonymous", "bad", text, "mosquitto.conf: allow_anonymous false")


def _judge_forbidden(broker: Broker, one: Forbidden, outcome: LinkError | None) -> Finding:
    """It was really tried: MQTT 5 answers a forbidden publish with 0x87."""
    if isinstance(outcome, NotAllowed):
        return Finding("permissions", "good", say(f"不允许写 {one.topic}", f"writing {one.topic} is refused"))
    if outcome is not None:
        text = say(
            f"无从得知能否写 {one.topic}：{outcome}", f"nobody can tell whether {one.topic} may be written: {outcome}"
        )
        return Finding("permissions", "note", text)
    text = say(
        f"消息服务器让任何人都能写：用户 {broker.username} 写了 {one.topic}，{one.zh}",
        f"the broker lets anyone write: user {broker.username} wrote {one.topic}, {one.en}",
    )
    return Finding("permissions", "bad", text, f"mosquitto.conf: acl_file → {_ACL}")


def check_certificates(broker: Broker) -> Iterator[Finding]:
    """How many days are left to each certificate."""
    for role, expires_at in certificates_of(broker):
        days = (expires_at - time.time()) / 86400
        names = {
            "broker": say("消息服务器", "broker's"),
            "ca": say("签发者", "authority's"),
            "client": say("本机", "own"),
        }
        text = say(f"{names[role]}证书还有 {days:.1f} 天", f"the {names[role]} certificate has {days:.1f} days left")
        if days < 0:
            text = say(
                f"{names[role]}证书已过期 {-days:.1f} 天，或本机时钟不对",
                f"the {names[role]} certificate ended {-days:.1f} days ago, or this machine's clock is wrong",
            )
        tls = broker.tls
        paths = {"ca": tls.ca, "client": tls.certificate} if tls else {}
        shown = (
            f"openssl x509 -noout -subject -enddate -in {paths[role]}"
            if role in paths
            else (f"openssl s_client -connect {broker.where} </dev/null | openssl x509 -noout -subject -enddate")
        )
        is_well = days >= LEAST_DAYS
        yield Finding("certificates", "good" if is_well else "bad", text, "" if is_well else shown)


async def _dial(broker: Broker, name: str) -> None:
    async with asyncio.timeout(2 * broker.connect_timeout_seconds), connect(broker, identifier=_identifier(name)):
        pass


async def _visit(broker: Broker, name: str, outcomes: Outcomes) -> None:
    """Log in and try to write to each topic. Raises LinkError or TimeoutError when no login comes about."""
    is_in = False
    for _ in range(VISITS):
        try:
            limit = asyncio.timeout(2 * broker.connect_timeout_seconds)
            async with limit, connect(broker, identifier=_identifier(name)) as connection:
                is_in = True
                await _try_all(connection, name, outcomes)
        except (LinkError, TimeoutError):
            if not is_in:
                raise
        if all(map(_is_known, outcomes.values())):
            return


async def _try_all(connection: Connection, name: str, outcomes: Outcomes) -> None:
    for topic in [topic for topic, outcome in outcomes.items() if not _is_known(outcome)]:
        try:
            await connection.publish(topic, NOTHING, properties={PROBE: name})
        except LinkError as error:
            outcomes[topic] = error
        else:
            outcomes[topic] = None


def _is_known(outcome: LinkError | None) -> bool:
    return outcome is None or isinstance(outcome, NotAllowed)


def _identifier(name: str) -> str:
    return f"doctor-{name}-{os.getpid()}-{os.urandom(4).hex()}"
