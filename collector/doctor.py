"""`infravitals doctor`: what keeps a collector from scoring, each with the command that mends it. It changes nothing.

What concerns the data is asked one after the other: beside a running server over its socket, else of the file itself.
"""

import http.client
import shlex
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from agent.broker_check import NOBODY, Forbidden, check_broker, check_certificates
from agent.checkup import (
    MOST_OFFSET_SECONDS,
    Check,
    Finding,
    State,
    Trouble,
    check_clock,
    check_disk,
    check_secrets,
    check_versions,
    run_checks,
)
from agent.errors import InfravitalsError
from agent.language import say
from agent.wire import points_topic
from collector.beside import Place, ask_clocks, ask_hello, ask_probe, ask_quarantine, ask_store, read_site
from collector.clocks import MEND, describe_skew
from collector.config import CollectorConfig
from collector.coverage import Coverage
from collector.health import AgentHealth
from collector.ledger import Ledger
from collector.reasons import MEANINGS, Reason
from collector.ruleset import load_rules
from collector.snapshot import Commands

DEADLINE_SECONDS = 120.0
"""The longest is a cold scorecard, of which the blind criteria are read."""
HTTP_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 3600.0
RETIRED_MS = 30 * 86_400_000
NAMES_SHOWN = 5
BLIND_SHOWN = 3


class _SetAside(msgspec.Struct):
    """Of what `quarantine --format json` prints."""

    last_day: dict[Reason, int]


def examine(place: Place, config: CollectorConfig | None, commands: Commands) -> list[Finding]:
    """Everything; config: None for the data of `up`, which has no broker."""
    checks: list[tuple[str, Check]] = [
        ("version", check_versions),
        ("clock", lambda: _check_clocks(place)),
        ("time zone", lambda: _check_zone(place)),
        ("disk", lambda: check_disk(place.data_directory)),
        ("site folder", lambda: _check_folder(place, commands)),
        ("data", lambda: _check_data(place, commands)),
    ]
    if config is not None:
        broker, name = config.broker, f"{config.site}-collector"
        forbidden = (
            Forbidden(
                points_topic(config.site, NOBODY),
                "采集中心可以冒充采集代理",
                "and the collector can speak in an agent's name",
            ),
        )
        checks += [
            ("secrets", lambda: check_secrets(broker, [config.data_directory], more_secrets(config))),
            ("broker", lambda: check_broker(broker, name, forbidden)),
            ("certificates", lambda: check_certificates(broker)),
        ]
    return run_checks(checks, DEADLINE_SECONDS)


def more_secrets(config: CollectorConfig) -> list[Path]:
    """The files of secrets and keys that a configuration names beside the broker's."""
    named = [one.file for _, one in config.secrets() if one != config.broker.password]
    tls = config.page.tls
    return [Path(file) for file in (*named, tls.key if tls else None) if file is not None]


def _check_clocks(place: Place) -> Iterator[Finding]:
    yield from check_clock()
    url = getattr(place.store_config, "url", None)
    if isinstance(url, str):
        yield check_http_date(url)
    for agent, skew_ms in sorted(ask_clocks(place).items()):
        yield Finding("clock", "bad", describe_skew(agent, skew_ms), MEND)


def check_http_date(url: str) -> Finding:
    """This clock against the one of the server at `url`, which says its own with every answer, to the second."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=HTTP_SECONDS)
    try:
        connection.request("HEAD", "/ping")
        told = connection.getresponse().getheader("Date")
        offset = time.time() - parsedate_to_datetime(told).timestamp() if told else None
    except (OSError, ValueError, http.client.HTTPException):
        offset = None
    finally:
        connection.close()
    if offset is None:
        text = say("存储的时钟无从得知", "nobody can tell the store's clock")
        return Finding("clock", "note", text, f"curl -sI {url}/ping")
    text = say(f"与存储的时钟相差 {offset:+.0f} 秒", f"{offset:+.0f} s ahead of the store's clock")
    is_well = abs(offset) <= MOST_OFFSET_SECONDS
    return Finding("clock", "good" if is_well else "bad", text, "" if is_well else "chronyc makestep")


def _check_zone(place: Place) -> Iterator[Finding]:
    now = datetime.now(UTC)
    text = say(
        f"一天从 {place.site.zone.key} 的零点开始，那里现在是 {now.astimezone(place.site.zone):%m-%d %H:%M}",
        f"days begin at midnight in {place.site.zone.key}, where it is {now.astimezone(place.site.zone):%m-%d %H:%M}",
    )
    yield Finding("time zone", "good", text)


def _check_folder(place: Place, commands: Commands) -> Iterator[Finding]:
    if place.site_folder is None:
        text = say(
            "没有站点目录：没有登记表，多数准则看不到对象",
            "no site folder: without a register most criteria see nothing",
        )
        yield Finding("site folder", "note", text, commands.spell_draft())
        return
    try:
        _, warnings = read_site(place, load_rules(place.rules_directory).rules)
    except InfravitalsError as error:
        raise Trouble(str(error).splitlines()[0], commands.spell("register check")) from error
    text = say(
        f"{place.site_folder} 没有错误，{len(warnings)} 处提醒",
        f"{place.site_folder} is in order, {len(warnings)} warnings",
    )
    yield Finding("site folder", "good", text)


def _is_alone(place: Place) -> bool:
    """Whether all of it is one `infravitals up`, its agent too."""
    return not place.words.startswith("-c")


def _check_data(place: Place, commands: Commands) -> Iterator[Finding]:
    start = commands.spell("up" if _is_alone(place) else "serve")
    running = ask_hello(place)
    path = getattr(place.store_config, "path", None)
    if running is not None:
        yield Finding("server", "good", say(f"在运行：{running}", f"running: {running}"))
    else:
        state: State = "note" if _is_alone(place) else "bad"
        yield Finding("server", state, say("采集中心没有在运行", "no collector runs on this data"), start)
        if isinstance(path, str) and not Path(path).exists():
            text = say(f"还没有数据：{path} 不存在", f"there are no data yet: {path} does not exist")
            yield Finding("store", "note", text, start)
            return
    yield _probe(place, commands)
    yield _check_quarantine(place, commands)
    yield from _check_agents(place, commands)
    yield _check_blind(place, commands)


def _probe(place: Place, commands: Commands) -> Finding:
    began = time.monotonic()
    try:
        ask_probe(place)
    except InfravitalsError as error:
        text = say(f"存储不能读写：{error}", f"the store cannot be written and read: {error}")
        raise Trouble(text, _mend_store(place, commands)) from error
    seconds = time.monotonic() - began
    text = say(
        f"{place.store_kind} 写入并读回，{seconds:.3f} 秒",
        f"{place.store_kind} was written and read back in {seconds:.3f} s",
    )
    return Finding("store", "good", text)


def _mend_store(place: Place, commands: Commands) -> str:
    """Whether it is there, then the login, then database and rights."""
    store = place.store_config
    url, user, database = (getattr(store, name, None) for name in ("url", "user", "database"))
    if not isinstance(url, str):
        return f"ls -l {place.data_directory}; df -h {place.data_directory}"
    if database is None:
        return f"curl -sI {url}/ping\n{commands.spell('store init', '--admin-token-file <file>')}"
    parts = urlsplit(url)
    ssl = " -ssl" if parts.scheme == "https" else ""
    words = f"SET PASSWORD FOR \"{user}\" = '<password>'"
    login = f"influx{ssl} -host {parts.hostname} -port {parts.port or 8086} -username <admin> -password '' -execute {shlex.quote(words)}"
    init = commands.spell("store init", "--admin-user <admin>", "--admin-password-file <file>")
    return f"curl -sI {url}/ping\n{login}\n{init}"


def _check_quarantine(place: Place, commands: Commands) -> Finding:
    """What was set aside within the last day, by reason."""
    found = msgspec.json.decode(ask_quarantine(place, "json"), type=_SetAside).last_day
    if not found:
        return Finding("quarantine", "good", say("近一天没有搁置任何数据", "nothing was set aside within the last day"))
    by_reason = sorted(found.items(), key=lambda one: (-one[1], one[0]))
    zh = "；".join(f"{count} 项 {reason}（{MEANINGS[reason].text.zh}）" for reason, count in by_reason)
    en = "; ".join(f"{count} {reason} ({MEANINGS[reason].text.en})" for reason, count in by_reason)
    total = sum(found.values())
    text = say(f"近一天搁置了 {total} 项：{zh}", f"{total} things were set aside within the last day: {en}")
    return Finding("quarantine", "note", text, commands.spell("quarantine"))


def _check_agents(place: Place, commands: Commands) -> Iterator[Finding]:
    agents = msgspec.json.decode(ask_store(place, "health", {}), type=list[AgentHealth])
    now = time.time() * 1000
    due = [one for one in agents if one.is_expected and now - one.last_received < RETIRED_MS]
    silent = [one.agent for one in due if not one.is_alive]
    waiting = [one.agent for one in due if (one.spool_oldest_age_seconds or 0.0) > LONGEST_WAIT_SECONDS]
    there = commands.spell("up") if _is_alone(place) else "infravitals-agent doctor -c agent.yaml"
    if not agents:
        yield Finding("agents", "note", say("还没有采集代理送来数据", "no agent has sent anything yet"), there)
    elif silent:
        text = say(
            f"{len(silent)} 个采集代理静默：{_some(silent)}", f"{len(silent)} agents are silent: {_some(silent)}"
        )
        yield Finding("agents", "bad", text, there)
    elif due or all(one.is_expected for one in agents):
        yield Finding("agents", "good", say(f"{len(due)} 个采集代理都在报告", f"all {len(due)} agents report"))
    yield from _revoked(agents, place)
    if waiting:
        text = say(f"数据等待超过一小时：{_some(waiting)}", f"data have waited for more than an hour: {_some(waiting)}")
        yield Finding("spools", "bad", text, there)
    ledger = msgspec.json.decode(ask_store(place, "ledger", {}), type=Ledger)
    for agent in ledger.agents:
        if agent.state == "unbalanced":
            yield Finding("ledger", "bad", f"{agent.agent}: {agent.findings[0].text}", commands.spell("ledger"))
    unknown = [agent.agent for agent in ledger.agents if agent.state not in ("balanced", "unbalanced")]
    if ledger.is_balanced and unknown:
        text = say(f"还说不准的账：{_some(unknown)}", f"accounts that nobody can tell yet: {_some(unknown)}")
        yield Finding("ledger", "note", text, commands.spell("ledger"))
    elif ledger.is_balanced:
        yield Finding("ledger", "good", say("账都对得上", "every account balances"))


def _revoked(agents: Sequence[AgentHealth], place: Place) -> Iterator[Finding]:
    """Those whose rights were taken away: nothing is expected of them, and nothing may come."""
    sending = [one.agent for one in agents if one.sends_though_revoked]
    if sending:
        text = say(
            f"已撤销而仍在发送：{_some(sending)}；消息服务器还没有重新加载",
            f"revoked and sending all the same: {_some(sending)}; the broker has not read its files again",
        )
        yield Finding("agents", "bad", text, "systemctl reload infravitals-broker")
    gone = [
        (one.agent, datetime.fromtimestamp(one.revoked_at / 1000, place.site.zone))
        for one in agents
        if one.revoked_at is not None and not one.sends_though_revoked
    ]
    if gone:
        zh = _some([f"{agent}({at:%Y-%m-%d})" for agent, at in gone])
        en = _some([f"{agent} (on {at:%Y-%m-%d})" for agent, at in gone])
        yield Finding("agents", "good", say(f"已撤销：{zh}", f"revoked: {en}"))


def _check_blind(place: Place, commands: Commands) -> Finding:
    """Criteria that nobody feeds, and what would change that first."""
    found = msgspec.json.decode(ask_store(place, "coverage", {"as_of": None}), type=Coverage)
    measured = [row for row in found.criteria if row.kind == "measured"]
    blind = [row for row in measured if row.status == "no_data"]
    by_id = {row.id: row for row in found.criteria}
    first = [
        say(f"{name}：{by_id[name].todo}", f"{name}: {by_id[name].todo}")
        for name in found.following
        if by_id[name].kind == "measured"
    ][:BLIND_SHOWN]
    text = say(
        f"{len(measured)} 条实测准则中 {len(blind)} 条没有数据",
        f"{len(blind)} of {len(measured)} measured criteria have no data",
    )
    if first:
        text += say("；最值得先接入：", "; to enrol first: ") + say("；", "; ").join(first)
    return Finding("blind", "note" if blind else "good", text, commands.spell("rules coverage") if blind else "")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown}, …"
