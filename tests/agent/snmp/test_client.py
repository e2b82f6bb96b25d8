"""Sessions with a real snmpd: all versions and keys, and everything that can go wrong between us and an agent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from servers import until_async
from snmpd import AUTHS, COMMUNITY, PATIENT, PRIVS, PUBLIC, QUICK, Snmpd, free_udp_port, spoiled, user, users

from agent.snmp import ber
from agent.snmp.ber import Binding
from agent.snmp.client import Patience, Session
from agent.snmp.credentials import Opened
from agent.snmp.troubles import AgentTrouble, EndlessWalk, NoAnswer, Refused

NAME = "1.3.6.1.2.1.1.5.0"
IF_NAME = "1.3.6.1.2.1.31.1.1.1.1"


@pytest.fixture(scope="module")
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snmpd]:
    with Snmpd(tmp_path_factory.mktemp("snmpd"), users()) as daemon:
        yield daemon


async def ask(session: Session) -> object:
    await session.open()
    try:
        return (await session.get([NAME])).get(NAME)
    finally:
        session.close()


MIXES = [PUBLIC, Opened(version="1", community=COMMUNITY), user()]
MIXES += [user(auth) for auth in AUTHS] + [user(auth, priv) for auth in AUTHS for priv in PRIVS]


@pytest.mark.parametrize("credential", MIXES, ids=lambda one: one.kind)
async def test_every_version_and_every_mix_of_keys_is_answered(snmpd: Snmpd, credential: Opened) -> None:
    assert await ask(snmpd.session(credential)) == b"ward-switch"


@pytest.mark.parametrize("version", ["1", "2c"])
async def test_columns_are_walked_whole(snmpd: Snmpd, version: str) -> None:
    session = snmpd.session(Opened(version=version, community=COMMUNITY))  # type: ignore[arg-type]
    await session.open()
    walked = await session.walk(IF_NAME)
    session.close()
    assert b"lo" in walked.rows.values() and walked.is_whole


async def test_what_the_agent_does_not_have_is_left_out(snmpd: Snmpd) -> None:
    for credential in (PUBLIC, Opened(version="1", community=COMMUNITY)):
        session = snmpd.session(credential)
        await session.open()
        assert await session.get([NAME, "1.3.6.1.2.1.1.99.0"]) == {NAME: b"ward-switch"}
        assert await session.has_rows("1.3.6.1.2.1.2") and not await session.has_rows("1.3.6.1.2.1.33")
        session.close()


@pytest.mark.parametrize(
    ("credential", "trouble", "text"),
    [
        (Opened(community="wrong"), NoAnswer, "check address, community and access lists"),
        (
            user("sha256", "aes128", auth_password="another-password"),
            Refused,
            "the device refuses v3 user-sha256-aes128",
        ),
        (user("sha256", "aes128", user="stranger"), Refused, "the device refuses v3 stranger"),
        (user("sha256", user="user-sha256-aes128"), Refused, "authNoPriv"),
        (user("sha256", "aes128", priv_password="another-password"), NoAnswer, "check priv and priv_password"),
    ],
)
async def test_each_wrong_credential_has_its_sentence(
    snmpd: Snmpd, credential: Opened, trouble: type[Exception], text: str, english: None
) -> None:
    with pytest.raises(trouble, match=text) as caught:
        await ask(snmpd.session(credential, QUICK if trouble is NoAnswer else PATIENT))
    assert f"127.0.0.1:{snmpd.port}" in str(caught.value)
    assert "password" not in str(caught.value).replace("auth_password", "").replace("priv_password", "")


async def test_a_port_where_nobody_listens_has_its_sentence(english: None) -> None:
    with pytest.raises(NoAnswer, match="nobody listens"):
        await ask(Session("127.0.0.1", free_udp_port(), PUBLIC, Patience(0.05, 1)))


async def test_a_name_that_does_not_resolve_has_its_sentence(english: None) -> None:
    with pytest.raises(NoAnswer, match=r"ward\.invalid: the name does not resolve"):
        await ask(Session("ward.invalid", 161, PUBLIC, QUICK))


async def test_a_restarted_agent_is_a_retry_and_no_failure(tmp_path: Path) -> None:
    """Its engine's boots and time, after kill -9 even its id, are others; the session finds that out by itself."""
    daemon = Snmpd(tmp_path, users())
    with daemon:
        session = daemon.session(user("sha256", "aes256"))
        await session.open()
        assert await session.get([NAME])
        retries = session.effort.retries
        await asyncio.to_thread(daemon.restart)
        assert await session.get([NAME]) == {NAME: b"ward-switch"}
        assert session.effort.retries > retries
        session.close()


async def test_a_dead_agent_is_found_again_when_it_is_back(tmp_path: Path) -> None:
    with Snmpd(tmp_path) as daemon:
        session = daemon.session()
        assert await _name(session) == b"ward-switch"
        session.patience = QUICK
        daemon.kill()
        with pytest.raises(NoAnswer):
            await _name(session)
        await asyncio.to_thread(daemon.start)
        await until_async(lambda: _is_answering(session))
        session.close()


async def _name(session: Session) -> object:
    await session.open()
    return (await session.get([NAME])).get(NAME)


async def _is_answering(session: Session) -> bool:
    try:
        return bool(await _name(session))
    except NoAnswer:
        return False


async def test_lost_answers_are_asked_for_again(snmpd: Snmpd) -> None:
    async with spoiled(snmpd.port, lambda data, number: [] if number % 2 == 0 else [data]) as port:
        session = Session("127.0.0.1", port, PUBLIC, Patience(2.0, 2))
        assert await ask(session) == b"ward-switch"
        assert session.effort.retries == 1


async def test_doubled_and_late_answers_are_not_taken_for_others(snmpd: Snmpd) -> None:
    async with spoiled(snmpd.port, lambda data, _: [data, data], delay_seconds=0.02) as port:
        session = Session("127.0.0.1", port, PUBLIC, PATIENT)
        await session.open()
        for _ in range(5):
            assert await session.get([NAME]) == {NAME: b"ward-switch"}
            assert b"lo" in (await session.walk(IF_NAME)).rows.values()
        session.close()


async def test_an_answer_to_another_question_is_none(snmpd: Snmpd, english: None) -> None:
    async with spoiled(snmpd.port, lambda data, _: [_with_another_id(data)]) as port:
        with pytest.raises(NoAnswer):
            await ask(Session("127.0.0.1", port, PUBLIC, Patience(0.05, 1)))


def _with_another_id(data: bytes) -> bytes:
    message = ber.read_message(data)
    pdu = ber.read_pdu(data, message.pdu)
    variables = ber.element(ber.SEQUENCE, data[pdu.variables.start : pdu.variables.end])
    return ber.message(message.version, message.community, ber.pdu(ber.RESPONSE, pdu.request_id + 1, 0, 0, variables))


async def test_an_answer_from_another_address_is_none(snmpd: Snmpd) -> None:
    """A socket of the loopback's other address answers in place of the one that was asked."""
    loop = asyncio.get_running_loop()
    other, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.2", 0))

    class Elsewhere(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
            message = ber.read_message(data)
            pdu = ber.read_pdu(data, message.pdu)
            found = ber.bindings([Binding(NAME, ber.OCTETS, b"impostor")])
            other.sendto(ber.message(1, message.community, ber.pdu(ber.RESPONSE, pdu.request_id, 0, 0, found)), peer)

    asked, _ = await loop.create_datagram_endpoint(Elsewhere, local_addr=("127.0.0.1", 0))
    with pytest.raises(NoAnswer):
        await ask(Session("127.0.0.1", asked.get_extra_info("sockname")[1], PUBLIC, Patience(0.05, 1)))
    asked.close()
    other.close()


async def test_garbage_has_its_sentence(snmpd: Snmpd, english: None) -> None:
    async with spoiled(snmpd.port, lambda _, __: [b"\xff\x00 no SNMP"]) as port:
        with pytest.raises(NoAnswer, match="only bytes that are no SNMP"):
            await ask(Session("127.0.0.1", port, PUBLIC, Patience(0.05, 1)))


class Fake(asyncio.DatagramProtocol):
    """An agent that does what no honest one does; built here, its answers by `answer` from a request's object id."""

    def __init__(self, answer: "Answer") -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        message = ber.read_message(data)
        pdu = ber.read_pdu(data, message.pdu)
        [first, *_] = ber.read_children(data, pdu.variables)
        error, bindings = self._answer(ber.read_binding(data, first).oid)
        answer = ber.pdu(ber.RESPONSE, pdu.request_id, error, 0, ber.bindings(bindings))
        self._transport.sendto(ber.message(message.version, message.community, answer), peer)


Answer = Callable[[str], tuple[int, list[ber.Binding]]]
COLUMN = "1.3.6.1.2.1.2.2.1.10"


@asynccontextmanager
async def fake(answer: Answer) -> AsyncIterator[Session]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: Fake(answer), local_addr=("127.0.0.1", 0))
    session = Session("127.0.0.1", transport.get_extra_info("sockname")[1], PUBLIC, PATIENT)
    await session.open()
    try:
        yield session
    finally:
        session.close()
        transport.close()


def counters(*rows: int) -> list[ber.Binding]:
    return [ber.Binding(f"{COLUMN}.{row}", ber.COUNTER32, row) for row in rows]


async def test_a_walk_in_circles_is_stopped(english: None) -> None:
    async with fake(lambda _: (0, counters(1, 2, 3))) as session:
        with pytest.raises(EndlessWalk, match=f"{COLUMN} does not advance after 3 rows"):
            await session.walk(COLUMN)


async def test_a_walk_that_stands_still_is_stopped() -> None:
    async with fake(lambda _: (0, counters(1))) as session:
        with pytest.raises(EndlessWalk):
            await session.walk(COLUMN)


async def test_an_error_is_not_taken_for_an_empty_table(english: None) -> None:
    async with fake(lambda oid: (5, [ber.Binding(oid, ber.NULL, None)])) as session:
        with pytest.raises(AgentTrouble, match="genErr"):
            await session.walk(COLUMN)


async def test_the_end_of_everything_is_the_end_of_a_table() -> None:
    async with fake(
        lambda oid: (0, counters(1) if oid == COLUMN else [ber.Binding(oid, ber.END_OF_VIEW, None)])
    ) as session:
        walked = await session.walk(COLUMN)
        assert walked.rows == {"1": 1} and walked.is_whole


async def test_numbers_of_all_widths_are_right() -> None:
    held = [
        (ber.COUNTER64, 2**64 - 1),
        (ber.COUNTER32, 2**32 - 1),
        (ber.GAUGE32, 2**31),
        (ber.INTEGER, -5),
        (ber.TIME_TICKS, 7),
    ]
    rows = [ber.Binding(f"{COLUMN}.{row}", tag, value) for row, (tag, value) in enumerate(held)]
    async with fake(
        lambda oid: (0, rows if oid == COLUMN else [ber.Binding("1.3.6.1.2.1.2.2.1.11.1", ber.NULL, None)])
    ) as session:
        walked = await session.walk(COLUMN)
        assert list(walked.rows.values()) == [value for _, value in held]


async def test_repetitions_shrink_when_long_answers_do_not_come_through(snmpd: Snmpd) -> None:
    async with spoiled(snmpd.port, lambda data, _: [data] if len(data) < 400 else []) as port:
        session = Session("127.0.0.1", port, PUBLIC, Patience(2.0, 0))
        await session.open()
        assert await session.get([NAME])
        walked = await session.walk("1.3.6.1.2.1.1.9.1.3")
        session.close()
        assert len(walked.rows) >= 5 and walked.is_whole


async def test_a_walk_of_a_silent_agent_gives_up_as_soon_as_its_sentence_says(snmpd: Snmpd, english: None) -> None:
    """Shorter answers are tried only where somebody answers at all."""
    session = snmpd.session(Opened(community="another"), QUICK)
    await session.open()
    with pytest.raises(NoAnswer, match=r"v2c no answer in 1400 ms \(3 attempts\)"):
        await session.walk(COLUMN)
    assert session.effort.requests == 3
    session.close()


async def test_an_agent_that_dies_in_a_walk_is_asked_once_more_and_shortly(tmp_path: Path) -> None:
    with Snmpd(tmp_path) as snmpd:
        async with spoiled(snmpd.port, lambda data, number: [data] if number == 0 else []) as port:
            session = Session("127.0.0.1", port, PUBLIC, PATIENT)
            await session.open()
            await session.get([NAME])
            session.patience = QUICK
            with pytest.raises(NoAnswer):
                await session.walk(COLUMN)
            assert session.effort.requests == 1 + 3 + 1
            session.close()


async def test_wide_counters_do_not_exist_for_version_1_and_narrow_ones_do(snmpd: Snmpd) -> None:
    """RFC 3584 4.2.2.1: an agent passes over Counter64 in a v1 walk, and the tables behind it are not lost."""
    session = snmpd.session(Opened(version="1", community=COMMUNITY))
    await session.open()
    for column in ("6", "10"):
        assert (await session.walk(f"1.3.6.1.2.1.31.1.1.1.{column}")).rows == {}
    assert (await session.walk("1.3.6.1.2.1.2.2.1.10")).rows
    assert (await session.walk("1.3.6.1.2.1.31.1.1.1.15")).rows
    session.close()
