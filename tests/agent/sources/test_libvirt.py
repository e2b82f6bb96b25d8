"""libvirt by the real virsh on libvirt's own test driver, and by answers written as virsh(1) documents them.

A real QEMU, a real migration and a real crash are in tests/hospital/test_migration.py.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from servers import program

from agent.errors import NoData, SourceError
from agent.sources import Output, Reading, Surroundings
from agent.sources.libvirt import Config, Source

DOMSTATS = """Domain: 'his-db'
  state.state={state}
  state.reason={reason}
  cpu.time=13456000000
  balloon.current=131072
  balloon.maximum=131072
  vcpu.current=2
  vcpu.maximum=4
"""


class Documented:
    """A `command` that answers as virsh(1) says; `stats` is moved by the test."""

    def __init__(self) -> None:
        self.stats = ""

    async def __call__(self, argv: Sequence[str], timeout_seconds: float) -> Output:
        assert argv[:3] == ("virsh", "-r", "-q"), "read only"
        return Output(self.stats if "domstats" in argv else "his-db\n", "", 0)


async def look(source: Source) -> list[Reading]:
    readings = await source.collect()
    assert undeclared("libvirt", readings) == []
    return readings


async def test_real_virsh_gives_the_machine_of_the_test_driver() -> None:
    program("virsh", "libvirt-clients")
    [machine] = await look(Source(Config(uri="test:///default"), Surroundings("hv-1")))
    assert machine.tags == {"vm": "test"}
    assert machine.fields == {"is_running": True, "is_autostart": False}


async def test_real_virsh_without_a_libvirt_is_one_sentence(tmp_path: Path) -> None:
    program("virsh", "libvirt-clients")
    source = Source(Config(uri=f"qemu+unix:///system?socket={tmp_path}/none"), Surroundings("hv-1"))
    with pytest.raises(SourceError, match="libvirt") as caught:
        await source.collect()
    assert "\n" not in str(caught.value)


async def events(*states: tuple[int, int]) -> list[tuple[str, object]]:
    command = Documented()
    source = Source(Config(uri="qemu+tcp://hv-1/system"), Surroundings("hv-1", command=command))
    found = []
    for state, reason in states:
        command.stats = DOMSTATS.format(state=state, reason=reason)
        found += [item for item in await look(source) if item.name == "vm_event"]
    return [(item.tags["kind"], item.fields["is_success"]) for item in found]


async def test_documented_machine_has_its_size() -> None:
    command = Documented()
    command.stats = DOMSTATS.format(state=1, reason=1)
    [machine] = await look(Source(Config(uri="qemu+tcp://hv-1/system"), Surroundings("hv-1", command=command)))
    assert machine.fields == {"is_running": True, "is_autostart": True, "vcpu_count": 2, "memory_bytes": 128 * 1024**2}


async def test_crash_and_its_end_are_told_once_and_a_plain_stop_is_none() -> None:
    assert await events((1, 1), (5, 3), (5, 3), (1, 1)) == [("crash", False), ("crash", True)]
    assert await events((1, 1), (6, 0)) == [("crash", False)]
    assert await events((1, 1), (5, 1), (5, 2), (1, 1)) == []


async def test_arrival_by_migration_is_told_once_and_not_at_the_first_look() -> None:
    assert await events((5, 1), (1, 2), (1, 2)) == [("migration", True)]
    assert await events((1, 2), (1, 2)) == []


async def test_host_with_the_client_alone_is_no_hypervisor(tmp_path: Path) -> None:
    source = Source(Config(), Surroundings("hv-1", root=tmp_path, command=Documented()))
    with pytest.raises(NoData):
        await source.collect()
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/virtqemud").touch()
    assert await source.collect() == []


def test_uri_that_would_be_an_option_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"uri": "--help"}, Config)
