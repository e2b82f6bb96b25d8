"""firewall_rules on real nftables, in a namespace that forwards."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from declared import undeclared
from namespaces import Namespace, Network
from servers import program

from agent.errors import NoData, SourceError
from agent.sources import Output, Surroundings, run_command
from agent.sources._iptables import read_save
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


IPTABLES = """
-P FORWARD DROP
-N LATE
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i in+ ! -s 10.5.9.0/24 -p tcp -m tcp --dport 443 -m comment --comment "web page; -j ACCEPT" -j ACCEPT
-A FORWARD -j LATE
-A LATE -m limit --limit 5/min -j LOG --log-prefix "no "
"""


@pytest.fixture(params=["legacy", "nft"])
def iptables(request: pytest.FixtureRequest, gateway: Namespace) -> Iterator[Callable[[str], None]]:
    """Puts rules in force by either kind of iptables; none are left of either."""
    command = program(f"iptables-{request.param}", "iptables")

    def run(rules: str) -> None:
        for line in rules.strip().splitlines():
            gateway.run(command, *shlex.split(line))

    gateway.nft("flush ruleset")
    yield run
    run("-P FORWARD ACCEPT\n-F\n-X")
    gateway.nft("flush ruleset")


async def without_nft(argv: Sequence[str], timeout_seconds: float) -> Output:
    """A gateway on which nft is not installed; all else is real."""
    if argv[0] == "nft":
        raise NoData("nft is not on this machine")
    if argv[0].endswith("tables-save"):
        argv = [argv[0].replace("-save", f"-{without_nft_kind[-1]}-save"), *argv[1:]]  # what the alternatives point to
    return await run_command(argv, timeout_seconds)


without_nft_kind = ["nft"]


@pytest.mark.parametrize("has_nft", [True, False], ids=["beside nft", "without nft"])
@pytest.mark.parametrize(
    ("more", "denies", "permits", "rules"),
    [
        ("", True, 0, 4),
        ("-A LATE -j ACCEPT", False, 1, 5),
        ('-A LATE -m comment --comment "any" -j ACCEPT', False, 1, 5),
        ("-P FORWARD ACCEPT", False, 0, 4),
        ("-P FORWARD ACCEPT\n-A LATE -j REJECT", True, 0, 5),
        ("-P FORWARD ACCEPT\n-A LATE ! -i in -j DROP", False, 0, 5),
    ],
)
def test_iptables_of_either_kind_is_read(
    gateway: Namespace,
    iptables: Callable[[str], None],
    request: pytest.FixtureRequest,
    has_nft: bool,
    more: str,
    denies: bool,
    permits: int,
    rules: int,
) -> None:
    without_nft_kind[:] = [request.node.callspec.params["iptables"]]
    iptables(IPTABLES + more)
    command = run_command if has_nft else without_nft
    fields = look(gateway, Source(Config(boundary="internet"), Surroundings("gw-1", command=command)))
    assert fields == {
        "is_in_service": True,
        "is_default_deny": denies,
        "permit_any_count": permits,
        "rules_count": rules,
        "strength_level": 2,
    }


def test_counters_of_iptables_tell_the_dead_rules(
    gateway: Namespace, iptables: Callable[[str], None], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    without_nft_kind[:] = [request.node.callspec.params["iptables"]]
    iptables("-P FORWARD DROP\n-A FORWARD -p icmp -j ACCEPT\n-A FORWARD -p tcp -m tcp --dport 23 -j ACCEPT")
    times = iter((0.0, 91 * DAY))
    around = Surroundings("gw-1", clock=lambda: next(times), state_directory=tmp_path, command=without_nft)
    source = Source(Config(boundary="internet"), around)
    assert "stale_rules_count" not in look(gateway, source)
    gateway.run("nsenter", f"--net=/run/netns/{gateway.name.replace('-gate', '-in')}", "ping", "-c1", "10.5.2.10")
    assert look(gateway, source)["stale_rules_count"] == 1


async def test_machine_without_any_filter_program_has_nothing_to_say() -> None:
    async def nothing(argv: Sequence[str], timeout_seconds: float) -> Output:
        raise NoData(f"{argv[0]} is not on this machine")

    with pytest.raises(NoData, match="iptables-save"):
        await Source(Config(boundary="internet"), Surroundings("gw-1", command=nothing)).collect()


@pytest.mark.parametrize("text", ["nonsense", '*filter\n[1:2] -A FORWARD -m comment --comment "open -j ACCEPT\nCOMMIT'])
def test_print_of_iptables_that_is_none_is_said(text: str) -> None:
    with pytest.raises(SourceError, match="iptables-save"):
        read_save(text, "ip")
