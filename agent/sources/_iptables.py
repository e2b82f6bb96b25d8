"""What `iptables-save -c` prints, as the same chains and rules that nftables has.

Both kinds of iptables print the same; the old one (legacy) is a filter of its own beside nftables, which nft does not show.
Reference: iptables-save(8), iptables-extensions(8).
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from agent.errors import SourceError
from agent.language import say
from agent.sources._ruleset import Chain, Rule, Ruleset

_CHAIN = re.compile(r":(\S+) (\S+) \[\d+:\d+\]")
_RULE = re.compile(r"(?:\[(\d+):\d+\] )?-A (\S+) ?(.*)")
VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
SAYING_NOTHING = {"LOG": "log", "NFLOG": "log", "ULOG": "log"}
KNOWING_CONNECTIONS = ("conntrack", "state", "connstate")
Statement = tuple[str, Any]


def read_save(text: str, family: str) -> Ruleset:
    """The tables of one family, ip or ip6. Raises SourceError when it is no such print."""
    chains: dict[str, Chain] = {}
    rules: dict[str, list[Rule]] = {}
    table, kind = "", "nft" if "nft-save" in text.partition("\n")[0] else "legacy"  # each has a filter of its own
    for line in text.splitlines():
        if line.startswith("*"):
            table = f"{family} {kind}/{line[1:].strip()}"
        elif found := _CHAIN.match(line):
            name, policy = found.groups()
            hook = name.lower() if policy != "-" else ""
            chains[f"{table} {name}"] = Chain(family, hook, "" if policy == "-" else policy.lower())
        elif found := _RULE.fullmatch(line):
            packets, chain, words = found.groups()
            name = f"{table} {chain}"
            known = {one.rpartition(" ")[2] for one in chains if one.startswith(f"{table} ")}
            statements = tuple(_statements(_split(words), known))
            rules.setdefault(name, []).append(Rule(name, statements, None if packets is None else int(packets)))
        elif line and not line.startswith("#") and line != "COMMIT":
            raise SourceError(say("看不懂 iptables-save 的回答", "cannot make sense of what iptables-save printed"))
    return Ruleset(chains, rules)


def _split(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError as error:
        text = say("看不懂 iptables-save 的回答", "cannot make sense of what iptables-save printed")
        raise SourceError(text) from error


def _statements(words: Sequence[str], chains: set[str]) -> Iterator[Statement]:
    """Each match with its options, then what is decided."""
    group: list[str] = []
    for place, word in enumerate(words):
        if word in ("-j", "-g"):
            yield from _match(group)
            yield _target(word, words[place + 1 :], chains)
            return
        starts = word in ("-m", "!") or (word[:1] == "-" and word[:2] != "--")
        if starts and group and group[-1] != "!":
            yield from _match(group)
            group = []
        group.append(word)
    yield from _match(group)


def _match(group: Sequence[str]) -> Iterator[Statement]:
    """One match: of a module by its name, else as it is written."""
    if not group:
        return
    name = group[1] if group[0] == "-m" and len(group) > 1 else ""
    if name in ("comment", "limit"):
        yield name, list(group[2:])
    elif name in KNOWING_CONNECTIONS:
        yield "match", {"left": {"ct": {"key": "state"}}, "right": list(group[2:])}
    else:
        yield "match", {"left": list(group)}


def _target(word: str, rest: Sequence[str], chains: set[str]) -> Statement:
    name, options = (rest[0] if rest else ""), list(rest[1:])
    if name in VERDICTS:
        return VERDICTS[name], options
    if name in SAYING_NOTHING:
        return SAYING_NOTHING[name], options
    if name in chains:
        return ("goto" if word == "-g" else "jump"), {"target": name}
    return "xt", {"type": "target", "name": name, "options": options}
