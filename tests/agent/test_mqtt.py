"""The door to MQTT against a real mosquitto: TLS, logins, rights, wills, acknowledgements, and the word for each trouble."""

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from servers import Authority, Issued, Mosquitto, following, free_port, program, until_async, write_passwords

from agent.broker import Broker, Secret, Tls
from agent.errors import LinkError
from agent.language import choose
from agent.link import Delivery
from agent.mqtt import Connection, MqttLink, Subscription, connect, deliveries
from agent.mqtt_trouble import explain_code
from agent.wire import Address, Receipt

ADDRESS = Address("hospital-a", "his-db-1")
POINTS = "infravitals/v1/hospital-a/his-db-1/points"
STATE = "infravitals/v1/hospital-a/his-db-1/state"


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as daemon:
        yield daemon


@pytest.fixture
def broker(mosquitto: Mosquitto) -> Broker:
    return Broker("127.0.0.1", port=mosquitto.port)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Broker]:
    """A broker with a password and the rights of the wire page; the agent may log in, and only to its own topics."""
    passwords = write_passwords(tmp_path / "passwords", {"hospital-a/his-db-1": "correct horse"})
    rights = tmp_path / "rights"
    rights.write_text("pattern readwrite infravitals/v1/%u/#\n")
    with Mosquitto(tmp_path / "guarded", f"password_file {passwords}\nacl_file {rights}") as daemon:
        secret = tmp_path / "secret"
        secret.write_text("correct horse\n")
        yield Broker("127.0.0.1", port=daemon.port, username="hospital-a/his-db-1", password=Secret(file=str(secret)))


def tls_settings(authority: Authority, issued: Issued) -> str:
    files = {"cafile": authority.certificate, "certfile": issued.certificate, "keyfile": issued.key}
    return "\n".join(f"{key} {path}" for key, path in files.items())


async def trouble_of(broker: Broker) -> str:
    with pytest.raises(LinkError) as trouble:
        async with connect(broker, identifier="probe"):
            pass
    text = str(trouble.value)
    assert text.startswith(f"cannot reach the MQTT broker {broker.where}: ")
    return text.removeprefix(f"cannot reach the MQTT broker {broker.where}: ")


async def test_wrong_password_is_one_sentence_without_the_password(guarded: Broker, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("battery staple")
    assert await trouble_of(guarded) == (
        "the login was refused (user hospital-a/his-db-1); check user name, password or client certificate"
    )


async def test_password_and_default_user_name_let_the_agent_in(guarded: Broker) -> None:
    nameless = msgspec.structs.replace(guarded, username=None)
    async with MqttLink(nameless, ADDRESS).session() as session:
        await session.send(b"{}", "boot-a", 0, 0)


async def test_publishing_without_the_right_is_an_error_and_no_silent_loss(guarded: Broker) -> None:
    with pytest.raises(LinkError) as refusal:
        async with MqttLink(guarded, Address("hospital-b", "his-db-1")).session():
            pass
    assert str(refusal.value) == (
        f"the MQTT broker {guarded.where} does not let user hospital-a/his-db-1 publish to "
        "infravitals/v1/hospital-b/his-db-1/state: not authorized; check its access control list"
    )


async def test_nobody_there_is_said_with_host_and_port() -> None:
    broker = Broker("127.0.0.1", port=free_port())
    assert await trouble_of(broker) == "connection refused; it is not running or the port is another"


async def test_unknown_host_is_said() -> None:
    assert await trouble_of(Broker("no-such-host.invalid")) == "the host name no-such-host.invalid is unknown"


async def test_server_that_says_nothing_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        broker = Broker("127.0.0.1", port=silent.getsockname()[1], connect_timeout_seconds=0.1)
        assert await trouble_of(broker) == "no answer in time"


async def test_tls_server_that_says_nothing_is_given_up(authority: Authority) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        tls = Tls(ca=str(authority.certificate))
        broker = Broker("127.0.0.1", port=silent.getsockname()[1], tls=tls, connect_timeout_seconds=0.1)
        assert await trouble_of(broker) == "no answer in time"


@pytest.fixture
def secured(tmp_path: Path, authority: Authority) -> Iterator[Broker]:
    settings = f"allow_anonymous true\n{tls_settings(authority, authority.issue('broker'))}"
    with Mosquitto(tmp_path / "secured", settings) as daemon:
        yield Broker("127.0.0.1", port=daemon.port, tls=Tls(ca=str(authority.certificate)))


async def test_tls_with_the_right_authority_connects(secured: Broker) -> None:
    async with connect(secured, identifier="probe") as connection:
        await connection.publish(POINTS, b"{}")


async def test_untrusted_certificate_is_one_sentence(secured: Broker, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "another authority")
    stranger = msgspec.structs.replace(secured, tls=Tls(ca=str(other.certificate)))
    assert await trouble_of(stranger) == (
        "its certificate is not trusted (self-signed certificate in certificate chain); check tls.ca"
    )


async def test_certificate_for_another_name_is_refused(tmp_path: Path, authority: Authority) -> None:
    settings = tls_settings(authority, authority.issue("elsewhere", "DNS:mqtt.hospital-b.example"))
    with Mosquitto(tmp_path / "elsewhere", f"allow_anonymous true\n{settings}") as daemon:
        broker = Broker("127.0.0.1", port=daemon.port, tls=Tls(ca=str(authority.certificate)))
        assert await trouble_of(broker) == (
            "its certificate is not for 127.0.0.1; connect by a name in the certificate or issue it anew"
        )


async def test_plain_connection_to_a_tls_port_says_what_it_may_want(secured: Broker) -> None:
    plain = msgspec.structs.replace(secured, tls=None)
    assert await trouble_of(plain) == (
        "it closed the connection before the login; it may want TLS or a client certificate, or not speak MQTT here"
    )


async def test_tls_to_a_plain_port_asks_whether_it_speaks_tls(broker: Broker, authority: Authority) -> None:
    assert (await trouble_of(msgspec.structs.replace(broker, tls=Tls(ca=str(authority.certificate))))).endswith(
        "; does this port speak TLS?"
    )


@pytest.fixture
def demanding(tmp_path: Path, authority: Authority) -> Iterator[Broker]:
    """A broker where the client certificate's common name is the user."""
    settings = "require_certificate true\nuse_identity_as_username true\n"
    rights = tmp_path / "rights"
    rights.write_text("pattern readwrite infravitals/v1/%u/#\n")
    settings += f"acl_file {rights}\n{tls_settings(authority, authority.issue('broker'))}"
    with Mosquitto(tmp_path / "demanding", settings) as daemon:
        yield Broker("127.0.0.1", port=daemon.port, tls=Tls(ca=str(authority.certificate)))


async def test_client_certificate_logs_in_and_names_the_user(demanding: Broker, authority: Authority) -> None:
    own = authority.issue("hospital-a/his-db-1")
    assert demanding.tls is not None
    tls = msgspec.structs.replace(demanding.tls, certificate=str(own.certificate), key=str(own.key))
    async with MqttLink(msgspec.structs.replace(demanding, tls=tls), ADDRESS).session() as session:
        await session.send(b"{}", "boot-a", 0, 0)


async def test_missing_client_certificate_is_hinted_at(demanding: Broker) -> None:
    assert "it may want TLS or a client certificate" in await trouble_of(demanding)


@pytest.mark.parametrize("missing", ["ca", "certificate", "key"])
async def test_certificate_file_that_is_not_there_is_named(missing: str, authority: Authority) -> None:
    own = authority.issue("there")
    files = {"ca": str(authority.certificate), "certificate": str(own.certificate), "key": str(own.key)}
    broker = Broker("127.0.0.1", tls=Tls(**files | {missing: "/nowhere/it.pem"}))
    with pytest.raises(LinkError) as trouble:
        async with connect(broker, identifier="probe"):
            pass
    assert str(trouble.value) == (
        "cannot read the certificate file /nowhere/it.pem: it does not exist; "
        f"mend it or change broker.tls.{missing}; it is tried on"
    )


async def test_certificate_file_that_holds_none_is_one_sentence(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.touch()
    with pytest.raises(LinkError, match=r"cannot use the certificate files .*ca\.pem: .*; they must be PEM"):
        async with connect(Broker("127.0.0.1", tls=Tls(ca=str(empty))), identifier="probe"):
            pass


async def test_encrypted_key_is_an_error_and_asks_nobody(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("locked")
    locked = tmp_path / "locked.key"
    words = f"pkey -in {own.key} -aes256 -passout pass:secret -out {locked}"
    subprocess.run([program("openssl", "openssl"), *shlex.split(words)], check=True)
    broker = Broker("127.0.0.1", tls=Tls(certificate=str(own.certificate), key=str(locked)))
    with pytest.raises(LinkError, match=r"cannot use the certificate files .*locked\.crt \+ .*locked\.key: "):
        async with connect(broker, identifier="probe"):
            pass


def test_secret_is_read_from_a_file_a_variable_or_a_credential(tmp_path: Path) -> None:
    (tmp_path / "mqtt").write_text("correct horse\n")
    environment = {"MQTT_PASSWORD": "battery", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    places = [Secret(file=str(tmp_path / "mqtt")), Secret(env="MQTT_PASSWORD"), Secret(credential="mqtt")]
    assert [place.read(environment) for place in places] == ["correct horse", "battery", "correct horse"]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        (
            Secret(file="/nowhere/secret"),
            "cannot read the password file /nowhere/secret: it does not exist; mend it or change broker.password",
        ),
        (
            Secret(file="/proc"),
            "cannot read the password file /proc: it is a directory; mend it or change broker.password",
        ),
        (Secret(env="MQTT_PASSWORD"), "the environment variable MQTT_PASSWORD is not set"),
        (Secret(credential="mqtt"), "no credential mqtt: not started by systemd with LoadCredential"),
    ],
)
def test_secret_that_is_not_there_is_one_sentence(place: Secret, sentence: str) -> None:
    with pytest.raises(LinkError) as trouble:
        place.read({}, key="broker.password")
    assert str(trouble.value) == sentence


@pytest.mark.parametrize("places", [{}, {"file": "a", "env": "B"}])
def test_secret_stands_in_exactly_one_place(places: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError, match="give exactly one of file, env and credential"):
        msgspec.convert(places, Secret)


def test_port_follows_from_tls() -> None:
    assert [Broker("b").where, Broker("b", tls=Tls()).where, Broker("b", port=7).where] == ["b:1883", "b:8883", "b:7"]


@asynccontextmanager
async def watching(broker: Broker, topic: str) -> AsyncIterator[Connection]:
    async with connect(broker, identifier="onlooker") as connection:
        await connection.subscribe(topic)
        yield connection


async def test_state_is_online_in_a_session_and_offline_after_it(broker: Broker) -> None:
    async with watching(broker, STATE) as onlooker:
        messages = onlooker.messages()
        async with MqttLink(broker, ADDRESS, clock=lambda: 1_760_000_000.0).session():
            assert (await following(messages)).payload == b'{"state":"online","since":1760000000000}'
        assert (await following(messages)).payload == b'{"state":"offline","since":1760000000000}'


DIALS_AND_HANGS = """
import asyncio, sys
from agent.mqtt import Broker, MqttLink
from agent.wire import Address

async def main():
    async with MqttLink(Broker("127.0.0.1", port=int(sys.argv[1])), Address("hospital-a", "his-db-1")).session():
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_will_makes_the_state_offline_when_the_agent_is_killed(broker: Broker, mosquitto: Mosquitto) -> None:
    async with watching(broker, STATE) as onlooker:
        messages = onlooker.messages()
        with subprocess.Popen([sys.executable, "-c", DIALS_AND_HANGS, str(mosquitto.port)]) as agent:
            online = await following(messages)
            agent.kill()
        offline = await following(messages)
    assert (b'"online"' in online.payload, b'"offline"' in offline.payload) == (True, True)


async def test_second_agent_of_the_same_name_ends_the_session_of_the_first(broker: Broker) -> None:
    link = MqttLink(broker, ADDRESS)
    async with link.session() as first:
        waiting = asyncio.ensure_future(following(first.receipts()))
        async with link.session():
            with pytest.raises(LinkError, match="lost the MQTT broker"):  # mosquitto 2.0 does not say why
                await waiting


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            0x8E,
            "somebody logged in under this name and took its place: a doctor, or another agent of the same name",
        ),
        (0x95, "a message is larger than it allows; raise its max_packet_size"),
        (0xA0, "it answered with code 0xa0"),
    ],
)
def test_reason_codes_are_plain_words(code: int, words: str) -> None:
    assert explain_code(code) == words


async def test_broker_that_dies_during_a_publish_is_noticed_at_once(broker: Broker, mosquitto: Mosquitto) -> None:
    async with connect(broker, identifier="probe") as connection:
        os.kill(mosquitto.pid, signal.SIGSTOP)  # it takes but does not answer
        publishing = asyncio.ensure_future(connection.publish(POINTS, b"{}"))
        await asyncio.sleep(0)
        mosquitto.kill()
        with pytest.raises(LinkError, match=r"lost the MQTT broker 127\.0\.0\.1:\d+: the connection broke"):
            await publishing


def collector(broker: Broker, name: str = "collector-1", **settings: object):  # type: ignore[no-untyped-def]
    options = {"site": None, "share_group": "collectors", "receive_maximum": 10} | settings
    return deliveries(broker, identifier=name, **options)  # type: ignore[arg-type]


async def test_collector_takes_what_a_foreign_sender_published(broker: Broker) -> None:
    async with collector(broker) as arriving, connect(broker, identifier="telegraf") as sender:
        await sender.publish(POINTS, b'{"metrics":[]}')
        delivery = await following(arriving)
    assert (delivery.address, delivery.boot, delivery.seq, delivery.points) == (ADDRESS, "", -1, -1)


@pytest.mark.parametrize("text", ["-1", "1e3", "seven", "", "9" * 400, "٣"])
async def test_sequence_that_is_no_number_is_none(broker: Broker, text: str) -> None:
    async with collector(broker) as arriving, connect(broker, identifier="sender") as sender:
        await sender.publish(POINTS, b"{}", properties={"boot": "boot-a", "seq": text})
        assert (await following(arriving)).seq == -1


async def test_collector_counts_foreign_topics_and_goes_on(broker: Broker) -> None:
    async with collector(broker, receive_maximum=1) as arriving, connect(broker, identifier="sender") as sender:
        await sender.publish("infravitals/v1/Hospital A/his-db-1/points", b"{}")
        await sender.publish(POINTS, b"{}")
        assert (await following(arriving)).address == ADDRESS
        assert arriving.foreign_count == 1


async def test_collector_of_one_site_gets_that_site_alone(broker: Broker) -> None:
    async with collector(broker, site="hospital-b") as arriving, connect(broker, identifier="sender") as sender:
        await sender.publish(POINTS, b"{}")
        await sender.publish("infravitals/v1/hospital-b/web-1/points", b"{}")
        assert (await following(arriving)).address == ("hospital-b", "web-1")


async def test_unacknowledged_batches_hold_the_broker_back(broker: Broker) -> None:
    async with collector(broker, receive_maximum=3) as arriving, connect(broker, identifier="sender") as sender:
        for number in range(5):
            await sender.publish(POINTS, b"{}", properties={"boot": "boot-a", "seq": str(number)})
        stream = aiter(arriving)
        held = [await following(stream) for _ in range(3)]
        fourth = asyncio.ensure_future(following(stream))
        await sender.publish(POINTS, b"{}")  # by its answer the broker has handled all before
        assert not fourth.done()
        await held[0].acknowledge()
        assert (await fourth).seq == 3


async def test_two_collectors_share_what_arrives(broker: Broker) -> None:
    seen: list[tuple[str, int]] = []

    async def work(name: str, arriving: Subscription) -> None:
        async for delivery in arriving:
            seen.append((name, delivery.seq))
            await delivery.acknowledge()

    async with collector(broker, "one") as one, collector(broker, "two") as two:
        tasks = [asyncio.ensure_future(work("one", one)), asyncio.ensure_future(work("two", two))]
        async with connect(broker, identifier="sender") as sender:
            for number in range(20):
                await sender.publish(POINTS, b"{}", properties={"seq": str(number)})
            await until_async(lambda: len(seen) == 20)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert sorted(number for _, number in seen) == list(range(20))
    assert {name for name, _ in seen} == {"one", "two"}


async def test_receipt_reaches_the_agent_it_is_for(broker: Broker) -> None:
    other = MqttLink(broker, Address("hospital-a", "his-db-2"))
    async with collector(broker) as arriving, other.session() as stranger, MqttLink(broker, ADDRESS).session() as own:
        await own.send(b"{}", "boot-a", 0, 0)
        delivery: Delivery = await following(arriving)
        misdirected = asyncio.ensure_future(following(stranger.receipts()))
        await delivery.reply(Receipt("boot-a", [(0, 0)], []))
        assert await following(own.receipts()) == Receipt("boot-a", [(0, 0)], [])
        assert not misdirected.done()
        misdirected.cancel()
        await asyncio.wait({misdirected})


async def test_receipt_that_cannot_be_read_is_told_and_passed_over(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async with MqttLink(broker, ADDRESS).session() as session, connect(broker, identifier="sender") as sender:
        topic = "infravitals/v1/hospital-a/his-db-1/receipt"
        await sender.publish(topic, b"no receipt")
        await sender.publish(topic, b'{"boot":"boot-a","applied":[[1,2]],"set_aside":[]}')
        assert (await following(session.receipts())).applied == [(1, 2)]
    assert "a receipt that cannot be read" in caplog.text
