"""Every profile against walks: what each gives is written beside it in `tests/walks/*.points`, read by people, compared here."""

import pytest
from declared import undeclared
from replayed import WALKS, find, replayed

from agent.snmp import ber
from agent.snmp.profile import load_profiles
from agent.snmp.walkfile import read_walk
from agent.sources import Reading

NAMES = sorted(path.stem for path in WALKS.glob("*.snmprec"))
PASSING = {"poll", "management_access"}


def lines_of(readings: list[Reading]) -> list[str]:
    """One line for each reading, in an order that does not depend on the device's."""
    return sorted(
        " ".join(
            [
                one.name,
                *(f"{k}={v}" for k, v in sorted(one.tags.items())),
                *(f"{k}:{_show(v)}" for k, v in one.fields.items()),
            ]
        )
        for one in readings
        if one.name not in PASSING
    )


def _show(value: object) -> str:
    return f"{float(value):.6g}" if isinstance(value, int | float) else str(value)


@pytest.mark.parametrize("name", NAMES)
async def test_walk_gives_the_points_that_stand_beside_it(name: str) -> None:
    expected = WALKS / f"{name}.points"
    assert expected.exists(), f"add {expected} with what the walk gives"
    async with replayed(name) as bench:
        first = await bench.round()
        told = lines_of(first)
        assert not undeclared("snmp_device", first)
        assert told == expected.read_text().splitlines()
        again = {one.name for one in await bench.round()}
        assert "poll" in again


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("built_")])
def test_built_walk_says_that_it_is(name: str) -> None:
    first = (WALKS / f"{name}.snmprec").read_text().splitlines()[0]
    assert first.startswith("# built from the public facts of the MIBs") and first.endswith(
        "not recorded from a device"
    )


async def test_failover_that_was_recorded_is_a_change_of_role() -> None:
    """Two recordings of one real router, before and after it took over."""
    async with replayed("recorded_keepalived") as bench:
        assert (await bench.fields("role_group", group="HIS"))["is_master"] is False
        for one in read_walk(WALKS / "recorded_keepalived_took_over.snmprec"):
            bench.replayed.put(*one)
        assert await bench.fields("role_change", group="HIS") == {"became_master": True}


PULLED = [
    ("built_h3c", "1.3.6.1.4.1.25506.8.35.9.1.2.1.2", "1", "psu", "psu"),
    ("built_huawei", "1.3.6.1.4.1.2011.5.25.183.1.20.1.3", "1", "stack", "stack"),
    ("built_oceanstor", "1.3.6.1.4.1.34774.4.1.23.5.3.1.3", "3.48.46.49", "psu", "psu"),
    ("built_cisco", "1.3.6.1.4.1.9.9.13.1.5.1.3", "1003", "psu", "psu"),
]


@pytest.mark.parametrize(("walk", "column", "row", "group", "kind"), PULLED)
async def test_part_that_vanished_is_lost_and_not_gone(walk: str, column: str, row: str, group: str, kind: str) -> None:
    async with replayed(walk) as bench:
        before = await bench.fields("redundant_group", group=group, kind=kind)
        bench.replayed.drop(f"{column}.{row}")
        after = await bench.fields("redundant_group", group=group, kind=kind)
    assert before["is_healthy"] is True and after["is_healthy"] is False
    assert after["members_count"] == before["members_count"]
    assert float(after["healthy_count"]) == float(before["healthy_count"]) - 1


async def test_bay_that_became_empty_lost_its_part() -> None:
    """Comware keeps the row of a supply that was pulled and calls it not installed."""
    async with replayed("built_h3c") as bench:
        await bench.round()
        bench.replayed.put("1.3.6.1.4.1.25506.8.35.9.1.2.1.2.2", ber.INTEGER, 3)
        fields = await bench.fields("redundant_group", group="psu", kind="psu")
    assert fields == {"members_count": 2.0, "healthy_count": 1.0, "is_healthy": False}


async def test_port_that_left_its_bundle_is_lost() -> None:
    async with replayed("built_lag") as bench:
        for row in ("1", "2"):
            bench.replayed.put(f"1.2.840.10006.300.43.1.2.1.1.21.{row}", ber.OCTETS, b"\x3d")
        assert (await bench.fields("redundant_group", kind="lag"))["is_healthy"] is True
        for column in ("12", "13"):
            bench.replayed.put(f"1.2.840.10006.300.43.1.2.1.1.{column}.2", ber.INTEGER, 0)
        fields = await bench.fields("redundant_group", kind="lag")
    assert (fields["members_count"], fields["healthy_count"], fields["is_redundant"]) == (2.0, 1.0, False)


ROLES = [
    ("built_vrrp", "1.3.6.1.2.1.68.1.3.1.3.2.51", 2, "vrrp", False),
    ("built_keepalived", "1.3.6.1.4.1.9586.100.5.2.3.1.4.2", 2, "vrrp", True),
    ("built_cisco", "1.3.6.1.4.1.9.9.106.1.2.1.1.15.10.7", 5, "hsrp", False),
    ("built_huawei", "1.3.6.1.4.1.2011.5.25.122.2.1.1.10.1", 3, "firewall", True),
    ("built_hillstone", "1.3.6.1.4.1.28557.2.2.1.8.0", 3, "firewall", False),
]


@pytest.mark.parametrize(("walk", "oid", "state", "kind", "became"), ROLES)
async def test_change_of_role_is_an_event(walk: str, oid: str, state: int, kind: str, became: bool) -> None:
    async with replayed(walk) as bench:
        assert not find(await bench.round(), "role_change")
        bench.replayed.put(oid, ber.INTEGER, state)
        readings = await bench.round()
        assert find(readings, "role_change", kind=kind) == {"became_master": became}
        assert not find(await bench.round(), "role_change")


async def test_another_master_of_a_stack_is_an_event() -> None:
    async with replayed("built_h3c") as bench:
        await bench.round()
        bench.replayed.put("1.3.6.1.4.1.25506.2.91.3.1.1.2", ber.INTEGER, 1)
        bench.replayed.put("1.3.6.1.4.1.25506.2.91.3.1.1.3", ber.INTEGER, 2)
        assert await bench.fields("role_change", group="irf", kind="stack") == {"became_master": True}


async def test_unlisted_state_of_a_member_is_never_healthy() -> None:
    async with replayed("built_h3c") as bench:
        bench.replayed.put("1.3.6.1.4.1.25506.8.35.9.1.2.1.2.1", ber.INTEGER, 77)
        assert await bench.fields("redundant_group", group="psu", kind="psu") == {"members_count": 2.0}


async def test_prescribed_profiles_are_the_only_ones() -> None:
    async with replayed("built_h3c", names=("h3c",)) as bench:
        await bench.round()
        assert [profile.name for profile in bench.device.chosen] == ["h3c"]


async def test_managed_neighbours_are_those_that_are_polled() -> None:
    async with replayed("built_lldp") as bench:
        bench.device.memory.managed = frozenset({"core-1"})
        readings = await bench.round()
    assert find(readings, "neighbour", neighbour="00:1a:ff:01:02:03")["is_managed"] is True
    assert find(readings, "neighbour", neighbour="bench-switch")["is_managed"] is False


def test_profiles_are_chosen_by_whole_numbers_of_the_object_id() -> None:
    cisco = load_profiles()["cisco"]
    assert cisco.fits("1.3.6.1.4.1.9.1.2494") and not cisco.fits("1.3.6.1.4.1.99999.1")
