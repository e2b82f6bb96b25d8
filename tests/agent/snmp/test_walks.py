"""Recorded walks: written, scrubbed, read again, and answering as their device did."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from snmpd import AUTH_PASSWORD, AUTHS, COMMUNITY, PATIENT, PRIVS, QUICK, Snmpd, user, users

from agent import language
from agent.documents import FileMistakes
from agent.errors import SourceError
from agent.snmp import ber
from agent.snmp.ber import Binding
from agent.snmp.client import Patience, Session
from agent.snmp.credentials import Opened
from agent.snmp.profile import load_profiles
from agent.snmp.record import record_walk
from agent.snmp.replay import Device, serve_replay
from agent.snmp.scrub import Scrubber
from agent.snmp.troubles import Refused
from agent.snmp.walkfile import read_walk, write_walk

SECRETS = {
    "community": COMMUNITY,
    "name": "Ward-Switch-Name",
    "place": "cellar of building 7",
    "person": "Doctor Nobody <nobody@example.org>",
    "user": "user-sha256-aes128",
    "serial": "SN-4711-0815",
    "address": "127.0.0.1",
    "password": AUTH_PASSWORD,
    "alias": "link to the pharmacy",
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Snmpd, list[Binding]]]:
    folder = tmp_path_factory.mktemp("snmpd")
    script = folder / "serial.sh"
    lines = "\n".join(
        f"  {oid}) echo {oid}; echo {kind}; echo '{value}';;"
        for oid, kind, value in (
            (".1.3.6.1.4.1.99999.1.0", "string", SECRETS["serial"]),
            (".1.3.6.1.4.1.99999.2.0", "string", f"seen by {SECRETS['name']} at 10.20.30.40"),
            (".1.3.6.1.4.1.99999.3.0", "ipaddress", "10.20.30.40"),
            (".1.3.6.1.4.1.99999.4.10.20.30.40", "integer", "7"),
            (".1.3.6.1.4.1.99999.5.0", "octet", "00 1a ff 22 33 44"),
        )
    )
    following = {
        ".1.3.6.1.4.1.99999": ".1.3.6.1.4.1.99999.1.0",
        ".1.3.6.1.4.1.99999.1.0": ".1.3.6.1.4.1.99999.2.0",
        ".1.3.6.1.4.1.99999.2.0": ".1.3.6.1.4.1.99999.3.0",
        ".1.3.6.1.4.1.99999.3.0": ".1.3.6.1.4.1.99999.4.10.20.30.40",
        ".1.3.6.1.4.1.99999.4.10.20.30.40": ".1.3.6.1.4.1.99999.5.0",
    }
    steps = "\n".join(f"  {oid}) want={behind};;" for oid, behind in following.items())
    script.write_text(
        f'#!/bin/sh\nwant=$2\nif [ "$1" = -n ]; then case $2 in\n{steps}\n  *) exit 0;;\nesac; fi\ncase $want in\n{lines}\nesac\n'
    )
    script.chmod(0o755)
    settings = f"""{users()}
syslocation {SECRETS["place"]}
syscontact {SECRETS["person"]}
sysname {SECRETS["name"]}
pass .1.3.6.1.4.1.99999 {script}
extend secret /bin/echo {SECRETS["serial"]}
proc {SECRETS["alias"].split()[-1]}
"""
    with Snmpd(folder, settings) as daemon:
        session = daemon.session(patience=Patience(1.0, 1))  # one of its long answers never comes through
        yield daemon, asyncio.run(record_walk(session, load_profiles()))
        session.close()


def test_nothing_of_its_owner_is_left_in_a_recording(recorded: tuple[Snmpd, list[Binding]]) -> None:
    _, bindings = recorded
    text = write_walk(bindings)
    assert len(bindings) > 200 and any(one.oid.startswith("1.3.6.1.4.1.99999.5") for one in bindings)
    for what, secret in SECRETS.items():
        assert secret.lower() not in text.lower(), what
        assert secret.encode().hex() not in text, what
    assert "10.20.30.40" not in text and "001aff223344" not in text
    assert Path("/proc/sys/kernel/hostname").read_text().strip() not in [
        word for line in text.split("\n") for word in line.split(" ")
    ]


def test_substitutes_are_the_same_for_the_same_word() -> None:
    column = "1.3.6.1.4.1.99999.1"
    words = [b"pharmacy", b"ward", b"pharmacy"]
    scrubbed = Scrubber(frozenset()).scrub(
        Binding(f"{column}.{row}", ber.OCTETS, word) for row, word in enumerate(words)
    )
    assert [one.value for one in scrubbed] == [b"text-1", b"text-2", b"text-1"]


def test_kept_text_loses_addresses_and_the_device_s_own_name() -> None:
    name = Binding("1.3.6.1.2.1.1.5.0", ber.OCTETS, b"hosp-core")
    kept = Binding("1.3.6.1.2.1.2.2.1.2.1", ber.OCTETS, b"Vlan7 of HOSP-CORE 10.1.2.3 00:11:22:33:44:55 a@b.cn")
    [_, scrubbed] = Scrubber(frozenset({"1.3.6.1.2.1.2.2.1.2"})).scrub([name, kept])
    assert scrubbed.value == b"Vlan7 of device 192.0.2.1 02:00:00:00:00:00 mail"


def test_rows_whose_index_is_an_address_are_left_out() -> None:
    address = Binding("1.3.6.1.4.1.99999.1.0", ber.IP_ADDRESS, "10.1.2.3")
    mac = Binding("1.3.6.1.2.1.2.2.1.6.1", ber.OCTETS, bytes([0, 26, 255, 1, 2, 3]))
    rows = [Binding(f"1.3.6.1.4.1.99999.2.{index}", ber.INTEGER, 1) for index in ("10.1.2.3.5", "0.26.255.1.2.3", "7")]
    scrubbed = Scrubber(frozenset()).scrub([address, mac, *rows])
    assert [one.oid for one in scrubbed if one.oid.startswith("1.3.6.1.4.1.99999.2")] == ["1.3.6.1.4.1.99999.2.7"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xa3\xff\x00", "no recording (no text)"),
        (b"# nothing\n", "it holds no variable"),
        (None, "cannot read: No such file"),
    ],
)
def test_file_that_is_no_recording_is_refused_in_a_sentence(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "it.snmprec"
    if content is not None:
        path.write_bytes(content)
    with language.speaking("en"), pytest.raises(FileMistakes) as caught:
        read_walk(path)
    [mistake] = caught.value.mistakes
    assert mistake.text.startswith(said)


def test_walk_is_read_as_it_was_written(tmp_path: Path) -> None:
    bindings = [
        Binding("1.3.6.1.2.1.1.1.0", ber.OCTETS, b"plain | text"),
        Binding("1.3.6.1.2.1.1.2.0", ber.OID, "1.3.6.1.4.1.9.1"),
        Binding("1.3.6.1.2.1.1.3.0", ber.TIME_TICKS, 2**32 - 1),
        Binding("1.3.6.1.2.1.2.2.1.6.1", ber.OCTETS, bytes(range(6))),
        Binding("1.3.6.1.2.1.4.20.1.1.1", ber.IP_ADDRESS, "192.0.2.1"),
        Binding("1.3.6.1.4.1.9.1", ber.INTEGER, -5),
    ]
    path = tmp_path / "walk.snmprec"
    path.write_text(write_walk(bindings, ["a remark"]))
    assert read_walk(path) == bindings


def test_wrong_lines_are_named(tmp_path: Path, english: None) -> None:
    path = tmp_path / "walk.snmprec"
    path.write_text("1.3.6.1|2|5\nnonsense\n1.3.x|2|5\n1.3.6.2|2|five\n")
    with pytest.raises(FileMistakes) as caught:
        read_walk(path)
    assert [mistake.line for mistake in caught.value.mistakes] == [2, 3, 4]


REPLAYED = [
    Opened(community="c"),
    Opened(version="1", community="c"),
    user(),
    *(user(auth, priv) for auth in AUTHS for priv in (None, *PRIVS)),
    user("sha1", "aes256", key_expansion="cisco"),
]


@pytest.mark.parametrize("credential", REPLAYED, ids=lambda one: f"{one.kind} {one.key_expansion}")
async def test_replayed_device_says_what_the_real_one_said(
    recorded: tuple[Snmpd, list[Binding]], credential: Opened
) -> None:
    _, bindings = recorded
    is_v3 = credential.version == "3"
    transport = await serve_replay(Device(bindings), "c", user=credential if is_v3 else None)
    session = Session("127.0.0.1", transport.get_extra_info("sockname")[1], credential, PATIENT)
    try:
        await session.open()
        for column in ("1.3.6.1.2.1.31.1.1.1.1", "1.3.6.1.2.1.2.2.1.8", "1.3.6.1.2.1.25.2.3.1.5"):
            held = {
                one.oid.removeprefix(f"{column}."): one.value for one in bindings if one.oid.startswith(f"{column}.")
            }
            assert held and (await session.walk(column)).rows == held
        assert await session.get(["1.3.6.1.2.1.1.2.0", "1.3.6.1.9.0"]) == {
            "1.3.6.1.2.1.1.2.0": "1.3.6.1.4.1.8072.3.2.10"
        }
    finally:
        session.close()
        transport.close()


@pytest.mark.parametrize("level", [user("sha256"), user()], ids=lambda one: one.kind)
async def test_replayed_device_answers_nobody_below_his_level(level: Opened) -> None:
    known = user("sha256", "aes128")
    uptime = Binding("1.3.6.1.2.1.1.3.0", ber.TIME_TICKS, 1)
    transport = await serve_replay(Device([uptime]), "c", user=known)
    port = transport.get_extra_info("sockname")[1]
    lower = msgspec.structs.replace(level, user=known.user)
    sessions = [Session("127.0.0.1", port, one, PATIENT) for one in (known, lower)]
    try:
        for session in sessions:
            await session.open()
        assert await sessions[0].get([uptime.oid]) == {uptime.oid: 1}
        with pytest.raises(Refused):
            await sessions[1].get([uptime.oid])
    finally:
        for session in sessions:
            session.close()
        transport.close()


async def test_replayed_device_knows_no_other_community() -> None:
    transport = await serve_replay(Device([Binding("1.3.6.1.2.1.1.3.0", ber.TIME_TICKS, 1)]), "c")
    session = Session("127.0.0.1", transport.get_extra_info("sockname")[1], Opened(community="d"), QUICK)
    await session.open()
    with pytest.raises(SourceError):
        await session.get(["1.3.6.1.2.1.1.3.0"])
    session.close()
    transport.close()
