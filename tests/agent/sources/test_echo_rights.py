"""Echoes without the right to raw sockets: the right is named, the other probes go on, and datagram sockets do where allowed."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest
from namespaces import Namespace, Network

from agent.broker import Secret
from agent.language import speaking
from agent.sources import Incomplete, Reading, Surroundings, isolation_probe, path_probe
from agent.sources._path_targets import Target as PathTarget
from agent.sources._verdict import Outcome

CAP_NET_RAW = 13
CAPSET_VERSION = 0x20080522


def lose_raw_sockets() -> None:
    """Take CAP_NET_RAW from the calling thread, as an agent without it runs (capset(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPSET_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    for place in range(3):  # effective, permitted, inheritable
        data[place] &= ~(1 << CAP_NET_RAW)
    assert libc.capset(header, data) == 0


@pytest.fixture
def inside() -> Iterator[Namespace]:
    """A namespace whose thread may not open raw sockets, and whose groups may not ping: what the kernel does by itself."""
    with Network("rights") as network:
        [namespace] = network.add("agent")
        namespace.call(lose_raw_sockets)
        yield namespace


@pytest.fixture
def prober(tmp_path: Path) -> isolation_probe.Source:
    key = tmp_path / "probe.key"
    key.write_text("a key of this test and of no other")
    target = isolation_probe.Target(zone="medical", address="127.0.0.1", allowed=("icmp",), blocked=("tcp/22",))
    config = isolation_probe.Config(
        zone="office", key=Secret(file=str(key)), targets=(target,), timeout_seconds=0.3, control_retries=0
    )
    return isolation_probe.Source(config, Surroundings("office-probe"))


def outcomes(readings: list[Reading]) -> dict[str, object]:
    return {one.tags["protocol"]: one.fields["outcome"] for one in readings if one.name == "isolation_cell"}


def test_isolation_names_the_right_once_and_tries_the_other_ways(
    inside: Namespace, prober: isolation_probe.Source, caplog: pytest.LogCaptureFixture
) -> None:
    with speaking("en"):
        for _ in range(2):
            inside.do(prober.open())
            found = outcomes(inside.do(prober.collect()))
            assert found == {"icmp": Outcome.NOT_SENT, "tcp": Outcome.NO_CONTROL}
    assert caplog.text.count("CAP_NET_RAW") == 1


def test_datagram_sockets_do_where_the_group_may_ping(
    inside: Namespace, prober: isolation_probe.Source, caplog: pytest.LogCaptureFixture
) -> None:
    inside.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    inside.do(prober.open())
    assert (
        outcomes(inside.do(prober.collect()))["icmp"] != Outcome.NOT_SENT
    )  # it left: no responder is there to say more
    assert "CAP_NET_RAW" not in caplog.text  # of the control, which nobody answers here, there is a word


def test_paths_lose_their_echoes_and_nothing_else(inside: Namespace) -> None:
    targets = (
        PathTarget(name="core", address="127.0.0.1"),
        PathTarget(name="his", kind="tcp", address="127.0.0.1", port=9),
    )
    probe = path_probe.Source(path_probe.Config(targets=targets, packets=1), Surroundings("ward-probe"))
    inside.do(probe.open())
    with speaking("en"), pytest.raises(Incomplete, match="CAP_NET_RAW") as caught:
        inside.do(probe.collect())
    assert [(one.name, one.tags["target"]) for one in caught.value.readings] == [("path_probe", "his")]
    inside.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    found = {one.tags["target"]: one.fields["is_reachable"] for one in inside.do(probe.collect())}
    assert found == {"core": True, "his": False}
