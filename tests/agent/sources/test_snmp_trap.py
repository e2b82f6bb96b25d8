"""snmp_trap with net-snmp's own senders: v1, v2c, v3, informs, strangers and storms; and a real failover of keepalived, seen twice."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from declared import undeclared
from servers import program, until_async
from snmpd import AUTH_PASSWORD, AUTHS, COMMUNITY, PRIV_PASSWORD, PRIVS, free_udp_port, spoiled, user
from snmpnet import Net

from agent import language
from agent.documents import FileMistakes, build, parse_document
from agent.snmp import ber
from agent.snmp.ber import Binding
from agent.snmp.engine import Engine
from agent.snmp.events import load_notices
from agent.sources import Reading, SourceError, Surroundings
from agent.sources.snmp_trap import MOST_NAMED, Config, Source

SOURCE = "snmp_trap"
LINK_DOWN = "1.3.6.1.6.3.1.1.5.3"


@pytest.fixture
def english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)


def read(text: str) -> Config:
    return build(parse_document(text, "agent.yaml"), Config)


@asynccontextmanager
async def listening(
    settings: str = "", hosts: str = "127.0.0.1", monotonic: Callable[[], float] = time.monotonic
) -> AsyncIterator[tuple[Source, int]]:
    port = free_udp_port()
    source = Source(
        read(f"listen: 127.0.0.1\nport: {port}\ntargets: [{{asset: core-switch, host: {hosts}}}]\n{settings}\n"),
        Surroundings("gateway", monotonic=monotonic),
    )
    await source.open()
    try:
        yield source, port
    finally:
        await source.close()


async def send(name: str, *words: object) -> int:
    argv = [program(name, "snmp"), *map(str, words)]
    process = await asyncio.create_subprocess_exec(
        *argv, env={"MIBS": "", "PATH": "/usr/bin:/bin"}, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


async def gather(source: Source, wanted: str = "device_event", *, least: int = 1) -> list[Reading]:
    """The events of so many rounds as it takes to get `least` of the wanted; with the counts of all of them."""
    found: list[Reading] = []

    async def have() -> bool:
        found.extend(await source.collect())
        return sum(reading.name == wanted for reading in found) >= least

    await until_async(have)
    assert not undeclared(SOURCE, found)
    return found


def events(readings: list[Reading]) -> list[tuple[str | None, str, str, object]]:
    return [
        (one.asset, one.tags["notification"], one.tags["part"], one.fields["has_begun"])
        for one in readings
        if one.name == "device_event"
    ]


def counts(readings: list[Reading]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in readings:
        if one.name == "notification_intake":
            for name, value in one.fields.items():
                total[name] = total.get(name, 0) + float(value)
    return {name.removesuffix("_count"): value for name, value in total.items() if value}


INTERFACE = ["1.3.6.1.2.1.2.2.1.1.7", "i", "7", "1.3.6.1.2.1.31.1.1.1.1.7", "s", "GE1/0/7"]


async def test_traps_of_v1_and_v2c_are_events_of_one_vocabulary() -> None:
    async with listening() as (source, port):
        await send("snmptrap", "-v2c", "-c", "any", f"127.0.0.1:{port}", "", LINK_DOWN, *INTERFACE)
        await send("snmptrap", "-v1", "-c", "any", f"127.0.0.1:{port}", "1.3.6.1.4.1.9.1", "", "3", "0", "", *INTERFACE)
        await send(
            "snmptrap", "-v1", "-c", "any", f"127.0.0.1:{port}", "1.3.6.1.4.1.2011.5.25.219.2.5", "", "6", "3", ""
        )
        readings = await gather(source, least=3)
    assert events(readings) == [
        ("core-switch", "linkDown", "GE1/0/7", True),
        ("core-switch", "linkUp", "GE1/0/7", False),
        ("core-switch", "hwPowerFail", "device", True),
    ]
    assert counts(readings) == {"received": 3, "events": 3}


async def test_informs_are_confirmed_and_a_repeated_one_is_taken_once() -> None:
    async with listening() as (source, port):
        status = await send(
            "snmpinform", "-v2c", "-c", "any", "-r", "0", "-t", "30", f"127.0.0.1:{port}", "", LINK_DOWN, *INTERFACE
        )
        assert status == 0
        variables = ber.bindings([Binding("1.3.6.1.6.3.1.1.4.1.0", ber.OID, LINK_DOWN)])
        inform = ber.message(1, b"any", ber.pdu(ber.INFORM, 77, 0, 0, variables))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(3):
                sender.sendto(inform, ("127.0.0.1", port))
            await until_async(lambda: _answered(sender))
        readings = await gather(source, least=2)
    assert len(events(readings)) == 2


def _answered(sender: socket.socket) -> bool:
    try:
        return ber.read_pdu(data := sender.recv(1500, socket.MSG_DONTWAIT), ber.read_message(data).pdu).request_id == 77
    except BlockingIOError:
        return False


async def test_v3_traps_and_informs_are_opened(tmp_path: Path) -> None:
    (tmp_path / "auth").write_text(AUTH_PASSWORD)
    user = f"credentials: [{{version: '3', user: trapper, auth: sha256, auth_password: {{file: {tmp_path}/auth}}}}]"
    words = ["-v3", "-u", "trapper", "-l", "authNoPriv", "-a", "SHA-256", "-A", AUTH_PASSWORD]
    async with listening(user) as (source, port):
        engine = ["-e", "0x8000000001020304"]
        await send("snmptrap", *words, *engine, f"127.0.0.1:{port}", "", LINK_DOWN, *INTERFACE)
        assert await send("snmpinform", *words, f"127.0.0.1:{port}", "", "1.3.6.1.6.3.1.1.5.4", *INTERFACE) == 0
        readings = await gather(source, least=2)
        assert [name for _, name, _, _ in events(readings)] == ["linkDown", "linkUp"]
        await send("snmptrap", *words[:-1], "another-password", *engine, f"127.0.0.1:{port}", "", LINK_DOWN, *INTERFACE)
        await send("snmptrap", "-v2c", "-c", "any", f"127.0.0.1:{port}", "", LINK_DOWN)
        await until_async(lambda: source._counts["refused"] == 2)
        assert not events(await source.collect())


LEVELS = [(None, None), *((auth, priv) for auth in AUTHS for priv in (None, *PRIVS))]
"""Every level, and every mix of keys that both sides can do."""


def v3_words(auth: str | None, priv: str | None) -> list[str]:
    """How net-snmp's senders are told a user; his name is his level."""
    words = ["-v3", "-u", v3_name(auth, priv), "-l", "authPriv" if priv else "authNoPriv" if auth else "noAuthNoPriv"]
    words += ["-a", AUTHS[auth], "-A", AUTH_PASSWORD] if auth else []
    return words + (["-x", PRIVS[priv], "-X", PRIV_PASSWORD] if priv else [])


def v3_name(auth: str | None, priv: str | None) -> str:
    return "-".join(["user", *filter(None, (auth, priv))])


def v3_credentials(folder: Path) -> str:
    """All those users, as agent.yaml has them."""
    (folder / "auth").write_text(AUTH_PASSWORD)
    (folder / "priv").write_text(PRIV_PASSWORD)
    lines = ["credentials:"]
    for auth, priv in LEVELS:
        line = f"version: '3', user: {v3_name(auth, priv)}"
        line += f", auth: {auth}, auth_password: {{file: {folder}/auth}}" if auth else ""
        line += f", priv: {priv}, priv_password: {{file: {folder}/priv}}" if priv else ""
        lines.append(f"  - {{{line}}}")
    return "\n".join([*lines, "v3_per_second: 1000"])


async def test_traps_and_informs_of_every_level_and_mix_of_keys_are_opened(tmp_path: Path) -> None:
    async with listening(v3_credentials(tmp_path)) as (source, port):
        where = f"127.0.0.1:{port}"
        for auth, priv in LEVELS:
            words, part = v3_words(auth, priv), ["1.3.6.1.2.1.31.1.1.1.1.7", "s", v3_name(auth, priv)]
            await send("snmptrap", *words, "-e", "0x8000000001020304", where, "", LINK_DOWN, *part)
            assert await send("snmpinform", *words, where, "", "1.3.6.1.6.3.1.1.5.4", *part) == 0, part
        readings = await gather(source, least=2 * len(LEVELS))
    told = {(part, name) for _, name, part, _ in events(readings)}
    assert told == {(v3_name(*level), name) for level in LEVELS for name in ("linkDown", "linkUp")}


WRONG = [
    pytest.param(["-X", "another-password"], id="another key"),
    pytest.param(["-x", "DES"], id="another cipher"),
    pytest.param(["-l", "authNoPriv"], id="not enciphered"),
    pytest.param(["-l", "noAuthNoPriv"], id="a name alone"),
]


@pytest.mark.parametrize("words", WRONG)
async def test_a_v3_notification_with_a_wrong_key_cipher_or_level_is_no_event(tmp_path: Path, words: list[str]) -> None:
    async with listening(v3_credentials(tmp_path)) as (source, port):
        sender, where = v3_words("sha256", "aes128"), f"127.0.0.1:{port}"
        engine = ["-e", "0x8000000001020304"]
        await send("snmptrap", *sender, *words, *engine, where, "", LINK_DOWN, *INTERFACE)
        assert await send("snmpinform", *sender, *words, "-r", "0", where, "", LINK_DOWN, *INTERFACE)
        await send("snmptrap", *sender, *engine, where, "", "1.3.6.1.6.3.1.1.5.4", *INTERFACE)
        readings = await gather(source)
    assert [name for _, name, _, _ in events(readings)] == ["linkUp"]
    assert counts(readings)["refused"] >= 2 and "garbled" not in counts(readings)


async def test_a_v3_inform_whose_confirmation_got_lost_is_taken_once(tmp_path: Path) -> None:
    answers: list[bytes] = []

    def lose_the_second(answer: bytes, number: int) -> list[bytes]:
        answers.append(answer)
        return [] if number == 1 else [answer]  # the first one tells our engine's id

    async with listening(v3_credentials(tmp_path)) as (source, port), spoiled(port, lose_the_second) as before:
        words = v3_words(None, None)
        assert await send("snmpinform", *words, "-t", "4", f"127.0.0.1:{before}", "", LINK_DOWN, *INTERFACE) == 0
        readings = await gather(source)
    assert len(answers) == 3 and len(events(readings)) == 1
    assert counts(readings)["received"] == 3


def test_v3_privacy_without_its_ciphers_is_one_sentence(monkeypatch: pytest.MonkeyPatch, english: None) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)  # as where the extra was installed without it
    with pytest.raises(SourceError, match="cryptography"):
        Engine([user("sha1", "aes128")], lambda _data, _peer: None)


async def test_strangers_and_other_communities_are_refused(tmp_path: Path) -> None:
    (tmp_path / "community").write_text(COMMUNITY)
    credential = f"credentials: [{{community: {{file: {tmp_path}/community}}}}]"
    async with listening(credential) as (source, port):
        await send("snmptrap", "-v2c", "-c", "public", f"127.0.0.1:{port}", "", LINK_DOWN)
        await send("snmptrap", "-v2c", "-c", COMMUNITY, f"127.0.0.1:{port}", "", LINK_DOWN)
        readings = await gather(source)
    assert counts(readings) == {"received": 2, "refused": 1, "events": 1}
    async with listening(hosts="127.0.0.9") as (source, port):
        await send("snmptrap", "-v2c", "-c", "any", f"127.0.0.1:{port}", "", LINK_DOWN)
        await until_async(lambda: source._counts["refused"] == 1)


async def test_refusals_are_said_once_per_sender_and_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, english: None
) -> None:
    (tmp_path / "community").write_text("right")
    settings = f"credentials: [{{community: {{file: {tmp_path}/community}}}}]"
    async with listening(settings) as (source, port):
        for community in ("wrong", "hushed", "right"):
            await send("snmptrap", "-v2c", "-c", community, f"127.0.0.1:{port}", "", LINK_DOWN, *INTERFACE)
        await until_async(lambda: source._counts["events"] == 1)
    async with listening(hosts="127.0.0.9") as (source, port):
        for _ in range(2):
            await send("snmptrap", "-v2c", "-c", "right", f"127.0.0.1:{port}", "", LINK_DOWN, *INTERFACE)
        await until_async(lambda: source._counts["refused"] == 2)
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(" (")[0] for text in said] == [
        "snmp_trap: notifications of 127.0.0.1 are refused: its community is none of credentials; mend the device or credentials",
        "snmp_trap: notifications of 127.0.0.1 are refused: it is not among targets; write it there where it is a device of yours",
    ]
    assert not any(word in text for text in said for word in ("wrong", "hushed"))


async def test_made_up_senders_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as (source, _):
        for number in range(2 * MOST_NAMED):
            source._refuse(f"10.0.{number // 256}.{number % 256}", "stranger")
    assert len(caplog.records) == MOST_NAMED


async def test_what_nobody_has_described_and_garbage_are_counted() -> None:
    async with listening() as (source, port):
        await send("snmptrap", "-v2c", "-c", "any", f"127.0.0.1:{port}", "", "1.3.6.1.4.1.99999.0.1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for garbage in (
                b"",
                b"\x30",
                b"\xff" * 2000,
                b"\x30\x84\xff\xff\xff\xff",
                ber.message(1, b"any", b"\xa7\x00"),
            ):
                sender.sendto(garbage, ("127.0.0.1", port))
        await until_async(lambda: source._counts["received"] == 6)
        readings = await source.collect()
    assert counts(readings) == {"received": 6, "unknown": 1, "garbled": 5}


async def test_a_storm_of_one_is_shed_and_the_others_are_heard() -> None:
    at_once = "per_sender: 20\nper_second: 1000"  # and no time passes, in which there would be a new allowance
    async with listening(at_once, monotonic=lambda: 1000.0) as (source, port):
        source._assets["127.0.0.2"] = "calm-switch"
        source._senders["127.0.0.2"] = type(source._senders["127.0.0.1"])(20, source._monotonic)
        trap = ber.message(
            1, b"x", ber.pdu(ber.TRAP_V2, 1, 0, 0, ber.bindings([Binding("1.3.6.1.6.3.1.1.4.1.0", ber.OID, LINK_DOWN)]))
        )
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as storm,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as calm,
        ):
            calm.bind(("127.0.0.2", 0))
            for _ in range(2000):
                storm.sendto(trap, ("127.0.0.1", port))
            calm.sendto(trap, ("127.0.0.1", port))
            await until_async(lambda: source._counts["received"] == 2001)
        readings = await source.collect()
    told = counts(readings)
    assert told["shed"] > 1900 and told["events"] == 2001 - told["shed"]
    assert sum(asset == "calm-switch" for asset, *_ in events(readings)) == 1
    assert len({one.timestamp for one in readings if one.asset == "core-switch"}) == told["events"] - 1


async def test_a_taken_port_is_one_sentence(english: None) -> None:
    async with listening() as (_, port):
        source = Source(
            read(f"listen: 127.0.0.1\nport: {port}\ntargets: [{{asset: a, host: 127.0.0.1}}]"), Surroundings("g")
        )
        with pytest.raises(SourceError, match=rf"cannot listen on UDP 127\.0\.0\.1:{port}: Address already in use"):
            await source.open()


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("targets: [{asset: A, host: h}]", "'A' cannot be a name"),
        ("targets: [{asset: a, host: h}, {asset: b, host: H}]", "h stands twice"),
        ("listen: here", "'here' is no address"),
        ("per_second: 0", "per_second"),
    ],
)
def test_mistakes_are_named(text: str, mistake: str, english: None) -> None:
    with pytest.raises(FileMistakes) as caught:
        read(text)
    assert mistake in str(caught.value)


def test_nothing_is_heard_without_targets() -> None:
    assert Config().split() == {}


def test_every_notification_is_described_once() -> None:
    notices = load_notices()
    assert len(notices) > 90 and len({named.name for named in notices.values()}) == len(notices)


async def test_roles_told_by_notifications_name_the_group_as_polling_does() -> None:
    async with listening() as (source, port):
        master = ["1.3.6.1.2.1.68.1.3.1.7.2.51", "a", "192.0.2.1"]
        await send("snmptrap", "-v2c", "-c", "x", f"127.0.0.1:{port}", "", "1.3.6.1.2.1.68.0.1", *master)
        standby = ["1.3.6.1.4.1.9.9.106.1.2.1.1.15.10.7", "i", "5"]
        await send("snmptrap", "-v2c", "-c", "x", f"127.0.0.1:{port}", "", "1.3.6.1.4.1.9.9.106.2.0.1", *standby)
        readings = await gather(source, "role_change", least=2)
    told = [(dict(one.tags), one.fields["became_master"]) for one in readings if one.name == "role_change"]
    assert told == [
        ({"group": "vrid-51@2", "kind": "vrrp"}, True),
        ({"group": "hsrp-7@10", "kind": "hsrp"}, False),
    ]


async def test_failover_of_keepalived_is_seen_by_poll_and_by_trap(tmp_path: Path) -> None:
    """Two routers in namespaces, a master that dies: the same change of role twice, of the router that took over."""
    net = Net(tmp_path)
    try:
        net.start()
        poll, trap = await net.open()
        await until_async(lambda: net.is_master(poll["a"], True), 120)
        await until_async(lambda: net.is_master(poll["b"], False), 120)
        await trap.collect()
        net.kill_master()
        await until_async(lambda: net.is_master(poll["b"], True), 120)
        polled = [
            dict(one.tags) | dict(one.fields)
            for one in net.seen
            if one.name == "role_change" and one.asset == "router-b"
        ]
        told: list[tuple[str | None, str, object]] = []

        async def is_told() -> bool:
            changes = [one for one in await trap.collect() if one.name == "role_change"]
            told.extend((one.asset, one.tags["group"], one.fields["became_master"]) for one in changes)
            return ("router-b", "HIS", True) in told

        await until_async(is_told)
        assert {"group": "HIS", "kind": "vrrp", "became_master": True} in polled
    finally:
        await net.close()
        net.stop()
