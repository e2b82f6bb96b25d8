"""Whether this gateway's nftables and iptables deny by default, permit nothing from any to any, and hold no dead rules.

Measures: boundary.is_in_service (it forwards and filters), is_default_deny, permit_any_count, rules_count, stale_rules_count
(rules without a hit in 90 days), strength_level (2 when connections are tracked, else 1; 0 without rules).
Needs: nft or iptables-save, and CAP_NET_ADMIN. Rules need counters to be known as dead or alive; those of iptables have them.
Reference: nft(8), libnftables-json(5), iptables-save(8).

The iptables of today are nftables too and are read there; the old kind (legacy) filters beside them and is read as well. Where
nft is missing, `iptables-save` and `ip6tables-save` tell of either kind.

What forwards over IPv6 must deny over IPv6 as well. How dead a rule is has to be seen: until every rule has had a hit or was
watched for 90 days, stale_rules_count is left out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec

from agent.catalogue import explain_id, is_id
from agent.errors import NoData, SourceError
from agent.foreign_words import explain_system
from agent.language import say
from agent.points import Value
from agent.sources import Reading, Seconds, SourceConfig, Surroundings
from agent.sources._iptables import KNOWING_CONNECTIONS, SAYING_NOTHING, read_save
from agent.sources._ruleset import NO_RULES, Chain, Rule, Ruleset

STALE_SECONDS = 90 * 86400.0
STATE_FILE = "firewall_rules.json"
FORWARDING = {"ip": "proc/sys/net/ipv4/ip_forward", "ip6": "proc/sys/net/ipv6/conf/all/forwarding"}
LEGACY = {"iptables-legacy-save": "ip", "ip6tables-legacy-save": "ip6"}
ANY_KIND = {"iptables-save": "ip", "ip6tables-save": "ip6"}
SHARE_OF_DEADLINE = 0.18
"""For each program that is asked: five at most."""


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """boundary: what this gateway's boundary is called. strength_level: where the gateway does more than nftables show."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=60)] = 300.0
    deadline_seconds: Seconds = 20.0
    boundary: str
    strength_level: Annotated[int, msgspec.Meta(ge=0, le=4)] | None = None

    def __post_init__(self) -> None:
        if not is_id(self.boundary):
            raise ValueError(explain_id("boundary", self.boundary))


class Source:
    """The forward hook of this machine."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._surroundings = surroundings
        self._hits = Hits(surroundings.state_directory / STATE_FILE if surroundings.state_directory else None)

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """One reading. Raises NoData without nft and iptables, SourceError without the right to ask them."""
        ruleset = await self._read()
        forwarded = [family for family, path in FORWARDING.items() if self._is_on(path)]
        fields = self._describe(ruleset, forwarded)
        return [Reading("boundary", fields, {"boundary": self._config.boundary})]

    async def close(self) -> None:
        """Nothing to close."""

    async def _read(self) -> Ruleset:
        """All filters that are in force. Raises NoData when there is nothing to ask."""
        printed = await self._ask("nft", "-j", "list", "ruleset")
        ruleset = None if printed is None else read_ruleset(printed)
        commands = LEGACY if ruleset is not None else {**ANY_KIND, **LEGACY}
        for program, family in commands.items():
            printed = await self._ask(program, "-c")
            if printed is not None:
                ruleset = (ruleset or NO_RULES).beside(read_save(printed, family))
        if ruleset is None:
            raise NoData(say("本机没有 nft，也没有 iptables-save", "this machine has neither nft nor iptables-save"))
        return ruleset

    async def _ask(self, *argv: str) -> str | None:
        """What a program printed; None when there is no such program. Raises SourceError when it refuses."""
        try:
            output = await self._surroundings.command(argv, self._config.deadline_seconds * SHARE_OF_DEADLINE)
        except NoData:
            return None
        if output.status:
            why = output.stderr.strip().splitlines()[:1]
            text = say(
                f"{argv[0]} 拒绝回答：{''.join(why)}；采集代理需要 CAP_NET_ADMIN",
                f"{argv[0]} refuses: {''.join(why)}; the agent needs CAP_NET_ADMIN",
            )
            raise SourceError(text)
        return output.stdout

    def _is_on(self, path: str) -> bool:
        try:
            return (self._surroundings.root / path).read_text("ascii").strip() == "1"
        except OSError:
            return False

    def _describe(self, ruleset: Ruleset, forwarded: Sequence[str]) -> dict[str, Value]:
        rules = ruleset.reached()
        bases = {family: ruleset.forwarding(family) for family in forwarded}
        fields: dict[str, Value] = {
            "is_in_service": bool(forwarded) and all(bases.values()),
            "is_default_deny": bool(forwarded)
            and all(any(ruleset.denies(chain) for chain in chains) for chains in bases.values()),
            "permit_any_count": sum(rule.verdict == "accept" and not rule.is_narrowed for rule in rules),
            "rules_count": len(rules),
            "strength_level": _strength(rules) if self._config.strength_level is None else self._config.strength_level,
        }
        stale = self._hits.count_stale(rules, self._surroundings.clock())
        if stale is not None:
            fields["stale_rules_count"] = stale
        return fields


class Watched(msgspec.Struct, frozen=True):
    """One rule over time, in seconds since the epoch. hit: when its counter last moved, None when it never did."""

    since: float
    hit: float | None = None
    packets: int = 0

    def look(self, packets: int, now: float) -> "Watched":
        """The same after one more look."""
        return Watched(self.since, now if packets and packets != self.packets else self.hit, packets)

    def is_stale(self, now: float) -> bool | None:
        """Whether it had no hit in 90 days; None while nobody can know."""
        if self.hit is not None and now - self.hit < STALE_SECONDS:
            return False
        return True if now - self.since >= STALE_SECONDS else None


class Hits:
    """Every rule over time, kept in a file across restarts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Watched] | None = None

    def count_stale(self, rules: Sequence[Rule], now: float) -> int | None:
        """Rules without a hit in 90 days; None while that cannot be known of every rule."""
        known = self._read() if self._known is None else self._known
        kept = {rule.key: known.get(rule.key, Watched(now)).look(rule.packets or 0, now) for rule in rules}
        if kept != known:
            self._write(kept)
        self._known = kept
        states = [None if rule.packets is None else kept[rule.key].is_stale(now) for rule in rules]
        return None if None in states else states.count(True)

    def _read(self) -> dict[str, Watched]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Watched]) if self._path else {}
        except (OSError, msgspec.MsgspecError):  # none yet, or damaged: watched anew
            return {}

    def _write(self, known: Mapping[str, Watched]) -> None:
        if self._path is None:
            return
        whole = self._path.with_suffix(".new")
        try:
            whole.write_bytes(msgspec.json.encode(known))
            whole.replace(self._path)
        except OSError as error:
            text = say(
                f"无法写入 {self._path}：{explain_system(error)}", f"cannot write {self._path}: {explain_system(error)}"
            )
            raise SourceError(text) from error


def read_ruleset(text: str) -> Ruleset:
    """What `nft -j list ruleset` printed. Raises SourceError when it is not that."""
    try:
        items = msgspec.json.decode(text)["nftables"]
        counters = {_name(item["counter"], "name"): item["counter"]["packets"] for item in items if "counter" in item}
        chains: dict[str, Chain] = {}
        rules: dict[str, list[Rule]] = {}
        for item in items:
            if chain := item.get("chain"):
                chains[_name(chain, "name")] = Chain(chain["family"], chain.get("hook", ""), chain.get("policy", ""))
            if rule := item.get("rule"):
                name = _name(rule, "chain")
                statements = tuple(_plain(*next(iter(one.items()))) for one in rule["expr"])
                table = name.rpartition(" ")[0]
                rules.setdefault(name, []).append(Rule(name, statements, _packets(statements, table, counters)))
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise SourceError(say("看不懂 nft 的回答", "cannot make sense of what nft answered")) from error
    return Ruleset(chains, rules)


def _plain(kind: str, value: Any) -> tuple[str, Any]:
    """What iptables put into nftables as a part of its own, as nftables would say it."""
    name = value.get("name") if kind == "xt" and value else None
    if name in SAYING_NOTHING or name == "comment":
        return "comment", name
    if name in KNOWING_CONNECTIONS:
        return "match", {"left": {"ct": {"key": "state"}}, "right": name}
    return ("reject", None) if name == "REJECT" else (kind, value)


def _name(item: Mapping[str, Any], key: str) -> str:
    return f"{item['family']} {item['table']} {item[key]}"


def _packets(statements: Sequence[tuple[str, Any]], table: str, counters: Mapping[str, int]) -> int | None:
    """What the rule's counter says, its own or a named one."""
    for kind, value in statements:
        if kind == "counter":
            return counters.get(f"{table} {value}") if isinstance(value, str) else int(value["packets"])
    return None


def _strength(rules: Sequence[Rule]) -> int:
    """2 for rules that know connections, 1 for rules that do not, 0 for none."""
    tracks = any(
        kind == "match" and "ct" in (value.get("left") or {}) for rule in rules for kind, value in rule.statements
    )
    return 2 if tracks else 1 if rules else 0
