"""The shipped broker: who gets in, who may do what, who is out, with real clients and our own agent and collector."""

import asyncio
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from servers import Authority, following, program, until_async
from shipped_broker import SITE, ShippedBroker
from unprivileged import open_folder

from agent.broker import Broker, Secret, Tls
from agent.errors import LinkError
from agent.language import speaking
from agent.mqtt import Connection, MqttLink, Subscription, Will, connect, deliveries
from agent.points import Point
from agent.publish import Publisher
from agent.spool import Spool
from agent.wire import Address, Receipt, encode_receipt, points_topic, receipt_topic, state_topic

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "broker.md").read_text("utf-8")
A, B, ELSEWHERE = Address(SITE, "his-db-1"), Address(SITE, "pacs-1"), Address("other-hospital", "his-db-1")
DENIED = "not authorized; check its access control list"


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    with speaking("en"):
        yield


@pytest.fixture
def shipped() -> Iterator[ShippedBroker]:
    with open_folder() as folder, ShippedBroker(folder) as broker:
        yield broker


def user(shipped: ShippedBroker, address: Address) -> Broker:
    """An agent's way in, its user as the page says."""
    return known(shipped, "/".join(address))


def known(shipped: ShippedBroker, name: str) -> Broker:
    way = shipped.add_user(name, f"password of {name}")
    shipped.reload()
    return way


def collecting(broker: Broker, site: str = SITE, group: str = "infravitals"):  # type: ignore[no-untyped-def]
    return deliveries(broker, site=site, share_group=group, identifier="collector", receive_maximum=10)


async def refusal_of(broker: Broker, topic: str, payload: bytes = b"{}", *, retain: bool = False) -> str:
    """What the broker says to a publish; '' when it takes it."""
    try:
        async with connect(broker, identifier="probe") as connection:
            await connection.publish(topic, payload, retain=retain)
    except LinkError as error:
        return str(error)
    return ""


async def trouble_of(broker: Broker) -> str:
    with pytest.raises(LinkError) as trouble:
        async with connect(broker, identifier="probe"):
            pass
    return str(trouble.value)


@asynccontextmanager
async def listening(broker: Broker, *filters: str) -> AsyncIterator[tuple[Connection, list[str]]]:
    """A client that subscribes to all it can think of, and the topics of what it was given."""
    seen: list[str] = []

    async def listen(connection: Connection) -> None:
        async for message in connection.messages():
            seen.append(message.topic)

    async with connect(broker, identifier="listener") as connection:
        for each in filters:
            await connection.subscribe(each)
        task = asyncio.ensure_future(listen(connection))
        yield connection, seen
        task.cancel()
        await asyncio.wait({task})


async def test_batch_and_receipt_pass_over_the_shipped_broker(shipped: ShippedBroker) -> None:
    link, collector = MqttLink(user(shipped, A), A), known(shipped, "collector")
    async with collecting(collector) as arriving, link.session() as session:
        await session.send(b"{}", "boot-a", 7, 0)
        delivery = await following(arriving)
        assert (delivery.address, delivery.seq) == (A, 7)
        await delivery.reply(Receipt("boot-a", [(7, 7)], []))
        assert (await following(session.receipts())).applied == [(7, 7)]


async def test_nobody_gets_in_without_tls(shipped: ShippedBroker) -> None:
    plain = msgspec.structs.replace(user(shipped, A), tls=None)
    assert "it may want TLS" in await trouble_of(plain)


async def test_nobody_gets_in_without_a_name_or_with_a_wrong_password(shipped: ShippedBroker, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("a guess")
    known_user = user(shipped, A)
    for stranger in (
        msgspec.structs.replace(known_user, username=None, password=None),
        msgspec.structs.replace(known_user, username="nobody"),
        msgspec.structs.replace(known_user, password=Secret(file=str(tmp_path / "wrong"))),
    ):
        assert "the login was refused" in await trouble_of(stranger)


async def test_broker_that_another_authority_vouches_for_is_not_spoken_to(
    shipped: ShippedBroker, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "another authority")
    deceived = msgspec.structs.replace(user(shipped, A), tls=Tls(ca=str(other.certificate)))
    assert "its certificate is not trusted" in await trouble_of(deceived)


def test_old_tls_is_refused(shipped: ShippedBroker) -> None:
    words = ["s_client", "-connect", f"127.0.0.1:{shipped.port}", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]
    told = subprocess.run([program("openssl", "openssl"), *words], stdin=subprocess.DEVNULL, capture_output=True)
    assert b"alert protocol version" in told.stderr


@pytest.mark.parametrize(
    "topic",
    [
        points_topic(*B),
        state_topic(*B),
        receipt_topic(*B),
        receipt_topic(*A),
        points_topic(*ELSEWHERE),
        state_topic(*ELSEWHERE),
        points_topic(*A) + "/more",
        "infravitals/v1/my-hospital/points",
        "anything",
        "$SYS/broker/version",
    ],
)
async def test_agent_writes_its_own_points_and_state_alone(shipped: ShippedBroker, topic: str) -> None:
    way = user(shipped, A)
    assert await refusal_of(way, points_topic(*A)) == ""
    assert await refusal_of(way, state_topic(*A)) == ""
    assert (await refusal_of(way, topic)).endswith(DENIED)


async def test_agent_is_given_its_own_receipts_and_state_alone(shipped: ShippedBroker) -> None:
    way, other, collector = user(shipped, A), user(shipped, B), known(shipped, "collector")
    everything = ("#", "+/+/+/+/+", "$SYS/#", points_topic(*B), receipt_topic(*B), state_topic(*B))
    async with MqttLink(other, B).session() as session, connect(collector, identifier="c") as writer:
        async with listening(way, *everything) as (own, seen):
            await session.send(b"{}", "boot-b", 0, 0)
            await own.publish(points_topic(*A), b"{}")
            await writer.publish(receipt_topic(*B), b"{}")
            await own.publish(state_topic(*A), b"{}")
            await writer.publish(receipt_topic(*A), b"{}")
            await until_async(lambda: receipt_topic(*A) in seen)
        assert set(seen) == {state_topic(*A), receipt_topic(*A)}


async def test_collector_reads_its_site_and_writes_receipts_alone(shipped: ShippedBroker) -> None:
    way, stranger, collector = user(shipped, A), user(shipped, ELSEWHERE), known(shipped, "collector")
    for topic in (points_topic(*A), state_topic(*A), receipt_topic(*ELSEWHERE), "infravitals/v1/collector/points"):
        refused = (await refusal_of(collector, topic)).endswith(DENIED)
        assert refused is (topic != "infravitals/v1/collector/points"), topic
    async with listening(collector, "#", "$SYS/#") as (_, seen):
        assert await refusal_of(stranger, points_topic(*ELSEWHERE)) == ""
        assert await refusal_of(stranger, state_topic(*ELSEWHERE)) == ""
        assert await refusal_of(way, points_topic(*A)) == ""
        await until_async(lambda: points_topic(*A) in seen)
    assert set(seen) == {points_topic(*A)}


async def test_second_collector_with_a_user_and_a_section_of_its_own_shares_what_comes(shipped: ShippedBroker) -> None:
    shipped.add_collector("collector-2")
    ways = [known(shipped, name) for name in ("collector", "collector-2")]
    async with collecting(ways[0]) as one, collecting(ways[1]) as two:
        async with MqttLink(user(shipped, A), A).session() as session:
            for number in range(10):
                await session.send(b"{}", "boot-a", number, 0)
        streams = [aiter(one), aiter(two)]
        shares = [[(await following(stream)).seq for _ in range(5)] for stream in streams]
    assert sorted(shares[0] + shares[1]) == list(range(10))


@pytest.mark.parametrize("name", [f"{SITE}/+", "+/+", "+/his-db-1", f"{SITE}/#", f"{SITE}/his-db-1/#"])
async def test_wildcard_in_a_user_s_name_widens_nothing(shipped: ShippedBroker, name: str) -> None:
    """A name that an administrator would have to write into the password file first; mosquitto denies it everything."""
    wild, collector = known(shipped, name), known(shipped, "collector")
    for topic in (points_topic(*A), state_topic(*A), receipt_topic(*A)):
        assert (await refusal_of(wild, topic)).endswith(DENIED)
    async with listening(wild, "#", receipt_topic(*A)) as (_, seen), connect(collector, identifier="c") as writer:
        await writer.publish(receipt_topic(*A), b"{}")
        assert (await refusal_of(user(shipped, A), points_topic(*A))) == ""
    assert seen == []


async def test_last_will_upon_somebody_else_s_state_is_not_carried_out(shipped: ShippedBroker) -> None:
    way, collector = user(shipped, A), known(shipped, "collector")
    async with listening(collector, "infravitals/v1/+/+/state", "infravitals/v1/+/+/points") as (_, seen):
        forging = Will(state_topic(*B), b"forged")
        # the same user twice: the first one's session ends without a farewell
        async with connect(way, identifier="x", will=forging), connect(way, identifier="y"):
            pass
        assert await refusal_of(way, points_topic(*A)) == ""
        await until_async(lambda: points_topic(*A) in seen)
    assert seen == [points_topic(*A)]


async def test_nobody_ends_a_session_by_its_client_identifier(shipped: ShippedBroker) -> None:
    way, other = user(shipped, A), user(shipped, B)
    async with MqttLink(way, A).session() as session, connect(other, identifier="/".join(A)) as thief:
        await thief.publish(points_topic(*B), b"{}")
        await session.send(b"{}", "boot-a", 0, 0)


async def test_who_joins_the_collectors_group_reads_nothing_and_delays_at_most(
    shipped: ShippedBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """mosquitto asks no rights of a subscription, so whoever knows the group's name gets turns; what it loses comes again."""
    other, collector = user(shipped, B), known(shipped, "collector")
    spool = Spool(tmp_path / "spool", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-a")
    for number in range(20):
        spool.put([Point("host_uptime", {"asset": "a"}, {"uptime_seconds": float(number)}, 1_760_000_000_000)])
    publisher = Publisher(spool, MqttLink(user(shipped, A), A), A, random=lambda: 0.01, resend_seconds=0.2)
    thief = listening(other, f"$share/infravitals/infravitals/v1/{SITE}/+/points")
    async with thief as (_, seen), collecting(collector) as arriving, running(receipt_all(arriving)):
        sending = asyncio.ensure_future(publisher.run())
        assert await publisher.drain(60)
        sending.cancel()
        await asyncio.wait({sending})
    assert seen == []
    assert spool.state().applied_batches == 20
    assert "no receipt from a collector within" in caplog.text
    spool.close()


async def test_group_whose_name_is_not_known_cannot_be_joined(shipped: ShippedBroker) -> None:
    other, collector, way = user(shipped, B), known(shipped, "collector"), user(shipped, A)
    filters = [f"$share/{group}/infravitals/v1/{SITE}/+/points" for group in ("infravitals", "collectors")]
    async with listening(other, *filters), collecting(collector, group="infravitals-5d1f") as arriving:
        async with MqttLink(way, A).session() as session:
            for number in range(10):
                await session.send(b"{}", "boot-a", number, 0)
        stream = aiter(arriving)
        assert [(await following(stream)).seq for _ in range(10)] == list(range(10))


def page_command(words: str) -> list[str]:
    """The command of the page that begins so."""
    [line] = set(re.findall(rf"^(?:sudo )?({re.escape(words)}.*?)(?: +#.*)?$", PAGE, re.MULTILINE))
    return shlex.split(line)


async def test_revoked_agent_is_out_at_once_and_the_others_stay(shipped: ShippedBroker) -> None:
    way, other = user(shipped, A), user(shipped, B)
    async with MqttLink(other, B).session() as staying:
        with pytest.raises(LinkError, match="lost the MQTT broker"):
            async with MqttLink(way, A).session() as session:
                waiting = asyncio.ensure_future(following(session.receipts()))
                await asyncio.sleep(0)
                revoke(shipped, A)
                await waiting
        await staying.send(b"{}", "boot-b", 0, 0)
    assert "the login was refused" in await trouble_of(way)


async def test_changed_password_ends_the_session_of_who_has_the_old_one(shipped: ShippedBroker) -> None:
    way = user(shipped, A)
    with pytest.raises(LinkError, match="lost the MQTT broker"):
        async with MqttLink(way, A).session() as session:
            waiting = asyncio.ensure_future(following(session.receipts()))
            await asyncio.sleep(0)
            renewed = shipped.add_user("/".join(A), "another")
            shipped.reload()
            await waiting
    async with MqttLink(renewed, A).session() as session:
        await session.send(b"{}", "boot-a", 0, 0)


def revoke(shipped: ShippedBroker, address: Address) -> None:
    """What the page says: take the user out of the password file and have the broker read it."""
    program_name, option, path, name = page_command("mosquitto_passwd -D")
    assert (program_name, path, name) == (
        "mosquitto_passwd",
        "/etc/mosquitto/infravitals.passwords",
        "my-hospital/his-db-1",
    )
    assert page_command("systemctl reload") == ["systemctl", "reload", "mosquitto"]
    shipped.change_passwords(option, str(shipped.passwords), "/".join(address))
    shipped.reload()


async def test_forged_receipt_and_state_of_another_agent_change_nothing(shipped: ShippedBroker, tmp_path: Path) -> None:
    way, other, collector = user(shipped, A), user(shipped, B), known(shipped, "collector")
    spool = Spool(tmp_path / "spool", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-a")
    spool.put([Point("host_uptime", {"asset": "a"}, {"uptime_seconds": 1.0}, 1_760_000_000_000)])
    publisher = Publisher(spool, MqttLink(way, A), A, random=lambda: 0.01)
    forged = encode_receipt(Receipt("boot-a", [(0, 2**40)], []))
    async with collecting(collector) as arriving, running(publisher.run()):
        held = await following(arriving)
        for forger in (other, way):
            assert (await refusal_of(forger, receipt_topic(*A), forged)).endswith(DENIED)
        assert (await refusal_of(other, state_topic(*A), b'{"state":"offline","since":1}', retain=True)).endswith(
            DENIED
        )
        assert spool.state().batches == 1
        await held.acknowledge()
    async with connect(collector, identifier="c") as connection:
        await connection.subscribe(state_topic(*A))
        retained = await following(connection.messages())
    assert b'"since":1}' not in retained.payload
    spool.close()


def test_receipt_for_what_was_never_made_changes_nothing(tmp_path: Path) -> None:
    """Also when the collector's own password is stolen: numbers to come are not receipted in advance."""
    spool = Spool(tmp_path / "spool", max_bytes=2**23, max_age_seconds=1e9, new_boot=lambda: "boot-a")
    everything = [(-(2**63), 2**63 - 1)]
    assert spool.settle(Receipt("boot-b", everything, everything)) == []
    assert spool.settle(Receipt("boot-a", everything, [])) == []
    spool.put([Point("host_uptime", {"asset": "a"}, {"uptime_seconds": 1.0}, 1_760_000_000_000)])
    assert [each.seq for each in spool.take(9, live_since=0, in_flight=())] == [0]
    assert (spool.state().batches, spool.state().applied_batches) == (1, 0)
    spool.close()


@asynccontextmanager
async def running(work) -> AsyncIterator[None]:  # type: ignore[no-untyped-def]
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def receipt_all(arriving: Subscription) -> None:
    """A collector that writes everything."""
    async for delivery in arriving:
        await delivery.acknowledge()
        await delivery.reply(Receipt(delivery.boot, [(delivery.seq, delivery.seq)], []))


async def test_message_beyond_the_bound_is_not_even_sent(shipped: ShippedBroker) -> None:
    way = user(shipped, A)
    assert await refusal_of(way, points_topic(*A), b"x" * 300_000) == ""
    assert await refusal_of(way, points_topic(*A), b"x" * 1_100_000) == (
        f"a message of 1100000 bytes is more than the MQTT broker {way.where} takes (1048576); raise its max_packet_size"
    )


def page_script(beginning: str) -> str:
    """The commands of the page that need no root, from the line that begins so to the end of its block."""
    block = PAGE[PAGE.index(beginning) :].partition("```")[0]
    return "\n".join(line for line in block.splitlines() if not line.startswith("sudo"))


def run_script(script: str, folder: Path) -> None:
    done = subprocess.run(["sh", "-euc", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_certificate_made_as_the_page_says_is_one_for_the_name_that_agents_dial(tmp_path: Path) -> None:
    run_script(page_script("new='-newkey"), tmp_path)
    verify = [
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        "mqtt.hospital.local",
        "-CAfile",
        "ca.pem",
    ]
    subprocess.run([program("openssl", "openssl"), *verify, "broker.pem"], cwd=tmp_path, check=True)


def test_user_made_as_the_page_says_gets_in(shipped: ShippedBroker, tmp_path: Path) -> None:
    script = page_script("umask 077") + f"\ncat new-users >> {shipped.passwords}"
    run_script(script, tmp_path)
    assert (tmp_path / "his-db-1.password").stat().st_mode & 0o077 == 0
    shipped.reload()
    tls, secret = Tls(ca=str(shipped.authority.certificate)), Secret(file=str(tmp_path / "his-db-1.password"))
    way = Broker("127.0.0.1", port=shipped.port, tls=tls, password=secret)

    async def send() -> None:
        async with MqttLink(way, A).session() as session:
            await session.send(b"{}", "boot-a", 0, 0)

    asyncio.run(send())


def test_page_names_every_setting_that_bounds_something() -> None:
    settings = (ROOT / "deploy" / "mosquitto" / "mosquitto.conf").read_text("utf-8")
    bounds = re.findall(r"^(\w*(?:max|limit|expiration)\w*) ", settings, re.MULTILINE)
    assert len(bounds) >= 8
    assert [each for each in bounds if f"`{each}`" not in PAGE] == []


def test_nothing_secret_lies_in_the_folder_that_is_shipped() -> None:
    shipped_files = sorted(path.name for path in (ROOT / "deploy" / "mosquitto").iterdir())
    assert shipped_files == ["infravitals.acl", "mosquitto.conf"]
    assert not re.search(r"\$[67]\$|BEGIN [A-Z ]*PRIVATE KEY", PAGE)
