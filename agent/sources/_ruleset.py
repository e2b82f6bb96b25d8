"""Chains and rules of a gateway's packet filter, and what follows from their order."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

DENIES = ("drop", "reject")
SAYS_NOTHING = ("counter", "log", "comment", "limit")
"""Statements that neither decide nor narrow; a limit narrows in time only."""

MOST_DEPTH = 16


class Rule(NamedTuple):
    """statements: as libnftables-json writes them, by kind. packets: None without a counter."""

    chain: str
    statements: tuple[tuple[str, Any], ...]
    packets: int | None

    @property
    def is_narrowed(self) -> bool:
        """Whether it takes some packets only."""
        return any(
            kind not in (*SAYS_NOTHING, *DENIES, "accept", "jump", "goto", "return") for kind, _ in self.statements
        )

    @property
    def verdict(self) -> str:
        """What it decides: its last statement's kind."""
        return self.statements[-1][0] if self.statements else ""

    @property
    def key(self) -> str:
        """The same rule as long as nobody edits it."""
        parts = [[kind, value] for kind, value in self.statements if kind != "counter"]
        return f"{self.chain} {msgspec.json.encode(parts, order='deterministic').decode()}"


class Chain(NamedTuple):
    """family: ip, ip6 or inet. policy: of a base chain, else ''."""

    family: str
    hook: str
    policy: str


class Ruleset(NamedTuple):
    """chains and rules by `family table chain`."""

    chains: Mapping[str, Chain]
    rules: Mapping[str, Sequence[Rule]]

    def walk(self, chain: str, depth: int = 0) -> Iterator[Rule]:
        """The rules of a chain and of those that all of its packets are sent to."""
        for rule in self.rules.get(chain, ()):
            yield rule
            if rule.verdict in ("jump", "goto") and not rule.is_narrowed and depth < MOST_DEPTH:
                yield from self.walk(self.target(rule), depth + 1)

    def target(self, rule: Rule) -> str:
        """Where a jump leads, within its table."""
        return " ".join((*rule.chain.split(" ")[:2], str(rule.statements[-1][1]["target"])))

    def denies(self, chain: str) -> bool:
        """Whether what no rule took is dropped."""
        rules = [rule for rule in self.walk(chain) if not rule.is_narrowed and rule.verdict in (*DENIES, "accept")]
        if rules:  # the first that takes everything decides
            return rules[0].verdict in DENIES
        return self.chains[chain].policy == "drop"

    def forwarding(self, family: str) -> list[str]:
        """The base chains that a forwarded packet of a family passes."""
        return [name for name, one in self.chains.items() if one.hook == "forward" and one.family in ("inet", family)]

    def reached(self) -> list[Rule]:
        """Every rule that a forwarded packet may meet, jumped to or not."""
        waiting = [name for name, one in self.chains.items() if one.hook == "forward"]
        seen = set(waiting)
        found = []
        while waiting:
            for rule in self.rules.get(waiting.pop(), ()):
                found.append(rule)
                if rule.verdict in ("jump", "goto") and (there := self.target(rule)) not in seen:
                    seen.add(there)
                    waiting.append(there)
        return found

    def beside(self, other: "Ruleset") -> "Ruleset":
        """Both filters: a packet passes the chains of both."""
        return Ruleset({**self.chains, **other.chains}, {**self.rules, **other.rules})


NO_RULES = Ruleset({}, {})
