"""firewall_rules on real nftables, in a namespace that forwards."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from declared import undeclared
from namespaces import Namespace, Network

from agent.errors import SourceError
from agent.sources import Output, Surroundings
from agent.sources.firewall_rules import Config, Source, read_ruleset

DAY = 86400.0
HEAD = "flush ruleset\ntable inet hospital {\nchain zones {\ntype filter hook forward priority 0; policy {policy};\n"
GOOD = "ct state established,related counter accept\ntcp dport 443 counter accept\n"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Namespace]:
    with Network("rules") as network:
        network.add("gate", "in", "out")
        for number, zone in enumerate(("in", "out"), 1):
            network.cable("gate", zone, zone, "eth0")
            network["gate"].ip(f"addr add 10.5.{number}.1/24 dev {zone}")
            network[zone].ip(f"addr add 10.5.{number}.10/24 dev eth0\nroute add default via 10.5.{number}.1")
        yield network["gate"]


@pytest.fixture(autouse=True)
def forwards(gateway: Namespace) -> None:
    gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=0")


def put(gateway: Namespace, rules: str, policy: str = "drop") -> None:
    gateway.nft(HEAD.replace("{policy}", policy) + rules + "\n}\n}")


def look(gateway: Namespace, source: Source | None = None) -> Mapping[str, object]:
    source = source or Source(Config(boundary="internet"), Surroundings("gw-1"))
    [reading] = gateway.do(source.collect())
    assert undeclared("firewall_rules", [reading]) == []
    assert reading.tags == {"boundary": "internet"}
    return reading.fields


def test_default_deny_without_permit_any(gateway: Namespace) -> None:
    put(gateway, GOOD)
    assert look(gateway) == {
        "is_in_service": True,
        "is_default_deny": True,
        "permit_any_count": 0,
        "rules_count": 2,
        "strength_level": 2,
    }


@pytest.mark.parametrize(
    ("rules", "policy", "denies", "permits"),
    [
        (GOOD, "accept", False, 0),
        (GOOD + "counter drop", "accept", True, 0),
        (GOOD + "reject", "accept", True, 0),
        (GOOD + "counter accept", "drop", False, 1),
        (GOOD + "log accept\ndrop", "drop", False, 1),
        (GOOD + 'iifname "in" accept', "drop", True, 0),
        (GOOD + "drop\naccept", "accept", True, 1),
    ],
)
def test_what_takes_the_rest_decides(gateway: Namespace, rules: str, policy: str, denies: bool, permits: int) -> None:
    put(gateway, rules, policy)
    fields = look(gateway)
    assert (fields["is_default_deny"], fields["permit_any_count"]) == (denies, permits)


def test_permit_any_behind_a_jump_is_found(gateway: Namespace) -> None:
    gateway.nft(
        HEAD.replace("{policy}", "drop").replace("chain zones", "chain late {\n}\nchain zones")
        + GOOD
        + "jump late\n}\n}\nadd rule inet hospital late counter accept"
    )
    fields = look(gateway)
    assert (fields["is_default_deny"], fields["permit_any_count"], fields["rules_count"]) == (False, 1, 4)


def test_ipv6_that_is_forwarded_and_not_filtered_is_no_default_deny(gateway: Namespace) -> None:
    gateway.nft((HEAD.replace("{policy}", "drop") + GOOD + "}\n}").replace("inet", "ip"))
    assert look(gateway)["is_default_deny"] is True
    gateway.run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    fields = look(gateway)
    assert (fields["is_default_deny"], fields["is_in_service"]) == (False, False)


def test_machine_that_does_not_forward_is_no_boundary_in_service(gateway: Namespace) -> None:
    put(gateway, GOOD)
    gateway.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    assert look(gateway)["is_in_service"] is False


def test_no_rules_at_all(gateway: Namespace) -> None:
    gateway.nft("flush ruleset")
    fields = look(gateway)
    assert (fields["is_default_deny"], fields["rules_count"], fields["strength_level"]) == (False, 0, 0)


def test_rules_without_a_hit_are_stale_once_they_were_watched_for_90_days(gateway: Namespace, tmp_path: Path) -> None:
    put(
        gateway,
        "icmp type echo-request counter accept\ntcp dport 23 counter accept\nct state established counter accept",
    )
    now = 0.0

    def make() -> Source:
        return Source(Config(boundary="internet"), Surroundings("gw-1", clock=lambda: now, state_directory=tmp_path))

    source = make()
    assert "stale_rules_count" not in look(gateway, source)
    gateway.run("nsenter", f"--net=/run/netns/{gateway.name.replace('-gate', '-in')}", "ping", "-c1", "10.5.2.10")
    now = 89 * DAY
    assert "stale_rules_count" not in look(gateway, make())
    now = 91 * DAY
    assert look(gateway, make())["stale_rules_count"] == 1
    now = 200 * DAY
    assert look(gateway, make())["stale_rules_count"] == 3


def test_rule_without_a_counter_leaves_staleness_unknown(gateway: Namespace, tmp_path: Path) -> None:
    put(gateway, "tcp dport 443 accept")
    times = iter((0.0, 100 * DAY))
    source = Source(
        Config(boundary="internet"), Surroundings("gw-1", clock=lambda: next(times), state_directory=tmp_path)
    )
    assert "stale_rules_count" not in look(gateway, source)
    assert "stale_rules_count" not in look(gateway, source)


async def test_refusal_names_the_right_that_is_missing() -> None:
    async def refuse(argv: object, timeout_seconds: float) -> Output:
        return Output("", "Operation not permitted (you must be root)\n", 1)

    with pytest.raises(SourceError, match="CAP_NET_ADMIN"):
        await Source(Config(boundary="internet"), Surroundings("gw-1", command=refuse)).collect()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"nftables": [{"rule": {"family": "ip"}}]}'])
def test_answer_that_is_none_is_said(text: str) -> None:
    with pytest.raises(SourceError):
        read_ruleset(text)
