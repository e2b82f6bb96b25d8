"""Rounds against replayed devices: interfaces whose counters wrap, restart or are cleared, rows that vanish, devices that fall silent."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from replayed import Bench, find, replayed
from snmpd import PATIENT, QUICK, free_udp_port

from agent.snmp import ber
from agent.snmp.ber import Binding
from agent.snmp.client import Patience, Session
from agent.snmp.credentials import Opened
from agent.snmp.device import Device
from agent.snmp.parts import FORGET_SECONDS, Parts
from agent.snmp.profile import load_profiles
from agent.snmp.replay import Device as Replayed
from agent.snmp.replay import serve_replay
from agent.sources import Incomplete

IF, IFX = "1.3.6.1.2.1.2.2.1", "1.3.6.1.2.1.31.1.1.1"
UPTIME = "1.3.6.1.2.1.1.3.0"
END = Binding("1.3.6.1.6.3.1.1.6.1.0", ber.INTEGER, 1)


def switch(ports: int = 2, *, wide: bool = True, gigabits: int = 1) -> list[Binding]:
    """The variables of a small switch; wide: with the 64-bit counters of IF-MIB."""
    found = [
        Binding("1.3.6.1.2.1.1.2.0", ber.OID, "1.3.6.1.4.1.99999.1"),
        Binding(UPTIME, ber.TIME_TICKS, 5000),
        Binding("1.3.6.1.2.1.1.5.0", ber.OCTETS, b"ward-switch"),
        END,
    ]
    for port in range(1, ports + 1):
        found += [
            Binding(f"{IF}.2.{port}", ber.OCTETS, f"GigabitEthernet1/0/{port}".encode()),
            Binding(f"{IF}.3.{port}", ber.INTEGER, 6),
            Binding(f"{IF}.5.{port}", ber.GAUGE32, min(gigabits * 10**9, 2**32 - 1)),
            Binding(f"{IF}.7.{port}", ber.INTEGER, 1),
            Binding(f"{IF}.8.{port}", ber.INTEGER, 1),
        ]
        found += [Binding(f"{IF}.{column}.{port}", ber.COUNTER32, 1000) for column in (10, 11, 13, 14, 16, 17, 19, 20)]
        if wide:
            found += [Binding(f"{IFX}.{column}.{port}", ber.COUNTER64, 1000) for column in (6, 7, 10, 11)]
            found += [
                Binding(f"{IFX}.1.{port}", ber.OCTETS, f"GE1/0/{port}".encode()),
                Binding(f"{IFX}.19.{port}", ber.TIME_TICKS, 0),
            ]
            found += [
                Binding(f"{IFX}.15.{port}", ber.GAUGE32, gigabits * 1000),
                Binding(f"{IFX}.18.{port}", ber.OCTETS, "上联核心".encode("gb18030")),
            ]
    return found


def tick(bench: Bench, ticks: int) -> None:
    bench.replayed.put(UPTIME, ber.TIME_TICKS, ticks)


async def test_interface_says_what_its_port_does() -> None:
    async with replayed(switch()) as bench:
        assert await bench.fields("net_interface", interface="GE1/0/1") == {
            "is_up": True,
            "is_admin_up": True,
            "speed_bits_per_second": 1e9,
            "alias": "上联核心",
        }
        tick(bench, 11000)
        for column, count in ((6, 1000 + 750_000_000), (10, 1000 + 75_000_000), (7, 1980), (11, 1000)):
            bench.replayed.put(f"{IFX}.{column}.1", ber.COUNTER64, count)
        bench.replayed.put(f"{IF}.14.1", ber.COUNTER32, 1020)
        fields = await bench.fields("net_interface", interface="GE1/0/1")
        assert fields["in_bits_per_second"] == 1e8 and fields["out_bits_per_second"] == 1e7
        assert fields["busy_ratio"] == 0.1
        assert fields["error_ratio"] == 20 / 1000 and fields["discard_ratio"] == 0.0


async def test_old_device_has_32_bits_and_they_wrap() -> None:
    async with replayed(switch(wide=False, gigabits=0)) as bench:
        for port in (1, 2):
            bench.replayed.put(f"{IF}.5.{port}", ber.GAUGE32, 100_000_000)
        bench.replayed.put(f"{IF}.10.1", ber.COUNTER32, 2**32 - 1000)
        await bench.round()
        tick(bench, 11000)
        bench.replayed.put(f"{IF}.10.1", ber.COUNTER32, 59000)
        fields = await bench.fields("net_interface", interface="GigabitEthernet1/0/1")
        assert fields["in_bits_per_second"] == 8 * 60000 / 60


async def test_32_bits_on_a_fast_link_are_not_believed() -> None:
    """10 Gb/s fill a 32-bit counter in 3.4 s: between two rounds it may have wrapped any number of times."""
    async with replayed(switch(wide=False, gigabits=4)) as bench:
        await bench.round()
        tick(bench, 11000)
        bench.replayed.put(f"{IF}.10.1", ber.COUNTER32, 5000)
        fields = await bench.fields("net_interface", interface="GigabitEthernet1/0/1")
        assert fields["is_up"] and "in_bits_per_second" not in fields


async def test_restart_is_no_burst() -> None:
    async with replayed(switch()) as bench:
        await bench.round()
        tick(bench, 100)
        bench.replayed.put(f"{IFX}.6.1", ber.COUNTER64, 5_000_000)
        readings = await bench.round()
        assert "in_bits_per_second" not in find(readings, "net_interface", interface="GE1/0/1")
        assert find(readings, "host_uptime") == {"uptime_seconds": 1.0}


async def test_counters_cleared_by_hand_are_no_burst() -> None:
    async with replayed(switch(wide=False)) as bench:
        for column in (10, 16):
            bench.replayed.put(f"{IF}.{column}.1", ber.COUNTER32, 2_000_000_000)
        bench.replayed.put(f"{IF}.5.1", ber.GAUGE32, 100_000_000)
        await bench.round()
        tick(bench, 11000)
        bench.replayed.put(f"{IF}.10.1", ber.COUNTER32, 0)
        fields = await bench.fields("net_interface", interface="GigabitEthernet1/0/1")
        assert "in_bits_per_second" not in fields and fields["out_bits_per_second"] == 0.0


async def test_one_interface_s_discontinuity_costs_that_one_only() -> None:
    async with replayed(switch()) as bench:
        await bench.round()
        tick(bench, 11000)
        bench.replayed.put(f"{IFX}.19.1", ber.TIME_TICKS, 10900)
        readings = await bench.round()
        assert "in_bits_per_second" not in find(readings, "net_interface", interface="GE1/0/1")
        assert "in_bits_per_second" in find(readings, "net_interface", interface="GE1/0/2")


async def test_unlisted_state_is_unknown_and_never_up() -> None:
    async with replayed(switch()) as bench:
        bench.replayed.put(f"{IF}.8.1", ber.INTEGER, 42)
        fields = await bench.fields("net_interface", interface="GE1/0/1")
        assert "is_up" not in fields and fields["is_admin_up"]


async def test_vanished_interface_is_down_and_comes_back() -> None:
    async with replayed(switch()) as bench:
        await bench.round()
        held = [one for oid in (f"{IF}.{n}.2" for n in (2, 3, 5, 7, 8)) if (one := bench.replayed.get(oid))]
        for column in (IF, IFX):
            for number in range(1, 21):
                bench.replayed.drop(f"{column}.{number}.2")
        assert await bench.fields("net_interface", interface="GE1/0/2") == {"is_up": False}
        for one in held:
            bench.replayed.put(*one)
        bench.replayed.put(f"{IFX}.1.2", ber.OCTETS, b"GE1/0/2")
        assert (await bench.fields("net_interface", interface="GE1/0/2"))["is_up"] is True


async def test_lost_part_is_remembered_over_a_restart_of_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "snmp" / "it.json"
    async with replayed(switch(), parts=Parts(path)) as bench:
        await bench.round()
    async with replayed(switch(ports=1), parts=Parts(path)) as bench:
        assert await bench.fields("net_interface", interface="GE1/0/2") == {"is_up": False}


def test_part_that_stays_away_was_removed_on_purpose() -> None:
    now = [0.0]
    parts = Parts(clock=lambda: now[0])
    parts.lost("psu", {"1": {"name": "one"}, "2": {"name": "two"}}, is_whole=True)
    assert parts.lost("psu", {"1": {"name": "one"}}, is_whole=True) == [{"name": "two"}]
    now[0] = FORGET_SECONDS
    assert parts.lost("psu", {"1": {"name": "one"}}, is_whole=True) == [{"name": "two"}]
    now[0] = FORGET_SECONDS + 1
    assert parts.lost("psu", {"1": {"name": "one"}}, is_whole=True) == []


def test_part_that_fails_while_the_agent_is_off_is_missed_however_long_it_was_healthy(tmp_path: Path) -> None:
    now = [0.0]
    both, path = {"1": {"name": "one"}, "2": {"name": "two"}}, tmp_path / "it.json"
    parts = Parts(path, lambda: now[0])
    for _ in range(3):
        parts.lost("psu", both, is_whole=True)
        parts.save()
        now[0] += FORGET_SECONDS
    restarted = Parts(path, lambda: now[0])
    assert restarted.lost("psu", {"1": both["1"]}, is_whole=True) == [both["2"]]


def test_time_that_a_part_is_away_outlives_a_restart_and_ends_when_it_is_back(tmp_path: Path) -> None:
    now = [0.0]
    both, path = {"1": {"name": "one"}, "2": {"name": "two"}}, tmp_path / "it.json"

    def missed(present: dict[str, dict[str, str]]) -> list[dict[str, str]]:
        parts = Parts(path, lambda: now[0])  # a new process each time
        gone = parts.lost("psu", present, is_whole=True)
        parts.save()
        return gone

    assert missed(both) == []
    assert missed({"1": both["1"]}) == [both["2"]]
    now[0] = FORGET_SECONDS
    assert missed(both) == []
    now[0] += 2
    assert missed({"1": both["1"]}) == [both["2"]]
    now[0] += FORGET_SECONDS + 1
    assert missed({"1": both["1"]}) == []


def test_table_that_was_not_read_whole_loses_nothing() -> None:
    parts = Parts()
    parts.lost("psu", {"1": {"name": "one"}}, is_whole=True)
    assert parts.lost("psu", {}, is_whole=False) == []


def test_damaged_memory_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "it.json"
    path.write_text("{")
    assert Parts(path).lost("psu", {}, is_whole=True) == []


async def test_silent_device_invents_no_state() -> None:
    async with replayed(switch()) as bench:
        await bench.round()
        bench.replayed.drop("1.3")
        bench.device.session.port, bench.device.session.patience = free_udp_port(), QUICK
        bench.device.session.close()
        readings = await bench.round()
        assert [(one.name, dict(one.fields)["is_answering"]) for one in readings] == [("poll", False)]


async def test_every_column_is_walked_once_a_round_and_names_seldom() -> None:
    async with replayed(switch()) as bench:
        await bench.round()
        first = bench.device.session.effort.rows
        await bench.round()
        rows = bench.device.session.effort.rows - first
        columns = 11  # two states, four wide counters, four of errors and discards, one discontinuity
        assert rows == 2 * columns


async def test_twenty_thousand_rows_are_walked() -> None:
    rows = [Binding(f"{IF}.8.{port}", ber.INTEGER, 1) for port in range(1, 20_001)]
    async with replayed([*switch(), *rows]) as bench:
        await bench.device.session.open()
        walked = await bench.device.session.walk(f"{IF}.8")
    assert len(walked.rows) == 20_000 and walked.is_whole


async def test_chassis_of_twenty_thousand_interfaces_is_read() -> None:
    async with replayed(switch(ports=20_000)) as bench:
        bench.device._budget_seconds = 300.0
        readings = await bench.round()
    assert sum(one.name == "net_interface" for one in readings) == 20_000


async def test_round_that_takes_too_long_says_where_it_was(english: None) -> None:
    said = r"127\.0\.0\.1:\d+: not read within 0\.05 s, it was at (-|\w+/\w+; \d+ tables are missing: \w+/\w+(, \w+/\w+)*)$"
    async with replayed(switch(ports=2000)) as bench:
        bench.device._budget_seconds = 0.05
        with pytest.raises(Incomplete, match=said):
            await bench.device.look("it")


class Stuck(Replayed):
    """A device that hangs at everything below `mute`."""

    mute = ""

    def answer(self, data: bytes, community: bytes) -> bytes | None:
        pdu = ber.read_pdu(data, ber.read_message(data).pdu)
        asked = [ber.read_binding(data, one).oid for one in ber.read_children(data, pdu.variables)]
        is_mute = self.mute and any(f"{oid}.".startswith(f"{self.mute}.") for oid in asked)
        return None if is_mute else super().answer(data, community)


ENTITY_CLASS, ENTITY_STATE = "1.3.6.1.2.1.47.1.1.1.1.5", "1.3.6.1.2.1.131.1.1.1.3"


@pytest.fixture
async def stuck() -> AsyncIterator[Bench]:
    """A switch with two power supplies, which are read before its ports; a round that hangs ends by its time, not by silence."""
    supplies = [Binding(f"{ENTITY_CLASS}.{one}", ber.INTEGER, 6) for one in (1, 2)]
    supplies += [Binding(f"{ENTITY_STATE}.{one}", ber.INTEGER, 3) for one in (1, 2)]
    device = Stuck([*switch(), *supplies])
    transport = await serve_replay(device, "c")
    bench = Bench(device, transport.get_extra_info("sockname")[1], None, None)
    yield bench
    bench.device.close()
    transport.close()


def hang(bench: Bench, mute: str) -> None:
    """A question below `mute` waits longer than a round may take; "": every question is answered again."""
    assert isinstance(bench.replayed, Stuck)
    bench.replayed.mute = mute
    bench.device.session.patience = Patience(60.0, 0) if mute else PATIENT
    bench.device._budget_seconds = 5.0 if mute else 30.0


async def test_time_that_is_up_costs_the_tables_that_were_not_read_and_loses_none_of_their_rows(
    stuck: Bench, english: None
) -> None:
    everything = await stuck.round()
    assert find(everything, "redundant_group", group="entity-psu") == {
        "members_count": 2.0, "healthy_count": 2.0, "is_healthy": True,
    }  # fmt: skip
    assert find(everything, "net_interface", interface="GE1/0/2")["is_up"] is True
    for column in (ENTITY_CLASS, ENTITY_STATE):
        stuck.replayed.drop(f"{column}.2")
    for column in (IF, IFX):
        for number in range(1, 21):
            stuck.replayed.drop(f"{column}.{number}.2")
    hang(stuck, f"{IF}.7")
    stuck.now += 60
    with pytest.raises(
        Incomplete, match=r"it was at interfaces/interfaces; \d+ tables are missing: interfaces/interfaces"
    ) as late:
        await stuck.device.look("it")
    found = late.value.readings
    assert find(found, "redundant_group", group="entity-psu") == {
        "members_count": 2.0, "healthy_count": 1.0, "is_healthy": False,
    }, "a table that was read whole counts, and so does its lost part"  # fmt: skip
    assert not [one for one in found if one.name == "net_interface"], "half a table is none, and no empty one either"
    poll = find(found, "poll", target="it")
    assert poll["is_answering"] is True and poll["rows_count"] == 2.0, "a state of each"
    hang(stuck, "")
    now = await stuck.round()
    assert find(now, "net_interface", interface="GE1/0/2") == {"is_up": False}, "read again, it is lost in truth"
    assert find(now, "net_interface", interface="GE1/0/1")["is_up"] is True


async def test_variables_that_were_read_before_the_time_was_up_are_told(stuck: Bench) -> None:
    """They are asked for all at once, before any table, and those that change rarely not again for an hour."""
    hang(stuck, f"{IF}.7")
    first = await stuck.round()
    assert {"host_uptime", "asset_info", "poll"} <= {one.name for one in first}
    assert not [one for one in first if one.name == "net_interface"]
    hang(stuck, "")
    assert [one for one in await stuck.round() if one.name == "net_interface"]


async def test_table_that_comes_later_is_found_soon_and_then_looked_for_seldom() -> None:
    async with replayed([one for one in switch() if not one.oid.startswith("1.3.6.1.2.1.2")]) as bench:
        await bench.round()
        assert "interfaces" not in [profile.name for profile in bench.device.chosen]
        for one in switch():
            bench.replayed.put(*one)
        await bench.round(seconds=20)
        assert "interfaces" in [profile.name for profile in bench.device.chosen]
        asked = []
        for _ in range(60):
            before = bench.device.session.effort.requests
            await bench.round()
            asked.append(bench.device.session.effort.requests - before)
        assert sum(n > min(asked) for n in asked) < 20


async def test_tables_and_variables_that_a_device_never_knew_are_asked_for_seldom() -> None:
    async with replayed("built_cisco") as bench:
        for table in ("9.9.388", "9.9.807", "9.9.42", "9.9.176"):
            bench.replayed.drop(f"1.3.6.1.4.1.{table}")
        asked = []
        for _ in range(4):
            before = bench.device.session.effort.requests
            await bench.round(seconds=1)
            asked.append(bench.device.session.effort.requests - before)
        assert asked[1] < asked[0] - 4 and asked[2:] == asked[1:3]
        bench.replayed.put("1.3.6.1.4.1.9.9.388.1.3.1.1.3.41", ber.INTEGER, 2)
        fields = await bench.fields("redundant_group", seconds=3600, group="vss-links", kind="link")
    assert fields["is_healthy"] is False


async def test_variable_that_was_answered_once_is_asked_for_in_every_round() -> None:
    async with replayed("built_panos") as bench:
        assert await bench.fields("role_group", kind="firewall")
        bench.replayed.drop("1.3.6.1.4.1.25461.2.1.2.1.11.0")
        assert not await bench.fields("role_group", seconds=1, kind="firewall")
        bench.replayed.put("1.3.6.1.4.1.25461.2.1.2.1.11.0", ber.OCTETS, b"passive")
        assert await bench.fields("role_group", seconds=1, kind="firewall") == {"is_master": False}


async def test_poll_tells_what_the_round_cost() -> None:
    async with replayed(switch()) as bench:
        readings = await bench.round()
        poll = find(readings, "poll", target="it")
        assert poll["is_answering"] and poll["retries_count"] == 0.0
        assert isinstance(poll["rows_count"], float) and poll["rows_count"] > 20
        assert find(readings, "management_access", protocol="snmp-v2c") == {"is_answering": True}


@pytest.mark.parametrize("other", ["1.3.6.1.4.1.99999.2"])
async def test_another_device_at_the_same_address_is_looked_at_anew(other: str) -> None:
    async with replayed(switch()) as bench:
        await bench.round()
        bench.replayed.drop("1.3.6.1.2.1.2")
        bench.replayed.put("1.3.6.1.2.1.1.2.0", ber.OID, other)
        await bench.round()
        assert [profile.name for profile in bench.device.chosen] == ["system"]


async def test_device_without_any_table_gives_what_there_is(english: None) -> None:
    bare = [one for one in switch() if one.oid.startswith("1.3.6.1.2.1.1.")]
    async with replayed(bare) as bench:
        readings = await bench.device.look("it")
    assert {one.name for one in readings} == {"asset_info", "host_uptime", "poll", "management_access"}


class Mute(Replayed):
    """A device that answers single questions and no walk."""

    def answer(self, data: bytes, community: bytes) -> bytes | None:
        is_single = ber.read_message(data).pdu.tag == ber.GET
        return super().answer(data, community) if is_single else None


async def test_device_that_falls_silent_in_a_table_is_named_with_profile_column_and_time(english: None) -> None:
    transport = await serve_replay(Mute(switch()), "c")
    port = transport.get_extra_info("sockname")[1]
    session = Session("127.0.0.1", port, Opened(community="c"), Patience(1.0, 1))
    device = Device(session, load_profiles(), time.monotonic, names=("interfaces",))
    device.chosen, device._chosen_at = (load_profiles()["interfaces"],), time.monotonic()
    device.object_id = "1.3.6.1.4.1.99999.1"
    with pytest.raises(Incomplete) as caught:
        await device.look("it")
    device.close()
    transport.close()
    assert str(caught.value) == (
        f"interfaces/interfaces ifOperStatus: 127.0.0.1:{port}: v2c no answer in 3000 ms (2 attempts);"
        " check address, community and access lists"
    )
