"""Agents join, are revoked, and certificates are renewed, at a real broker that is started from the site's own folder."""

import asyncio
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from servers import Daemon, answers, free_port, program, until, until_async
from unprivileged import open_folder, run_unprivileged

from agent import language
from agent.certificates import ask_expiry
from agent.config import read_config
from agent.errors import LinkError
from agent.mqtt import MqttLink
from agent.wire import Address
from collector.cli import main
from collector.setup.agents import NameInUse, add_agent, agent_names, remove_agent
from collector.setup.authority import AuthorityError, new_key
from collector.setup.broker_users import password_line, reload_broker
from collector.setup.making import make_site
from collector.setup.placing import Placer
from collector.setup.site import PASSWORDS, SiteMade
from collector.setup.upkeep import examine, renew
from collector.site_files import read_site_folder


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)


class SiteBroker(Daemon):
    """mosquitto as a site's folder says."""

    def __init__(self, folder: Path) -> None:
        self.site = folder / "site"
        self.made = SiteMade(
            site="north", hosts=("localhost",), broker_port=free_port(), broker_address="127.0.0.1", owner="root"
        )
        make_site(self.site, self.made, "first", datetime.now(UTC), lambda name: None)
        argv = [program("mosquitto", "mosquitto"), "-c", self.site / "mosquitto" / "mosquitto.conf"]
        super().__init__(argv, folder, lambda: answers(self.made.broker_port) and self.said(" running"))

    def said(self, words: str) -> int:
        return self.log.read_text(errors="replace").count(words)

    def link(self, name: str) -> MqttLink:
        """The link of an agent as its folder says."""
        return MqttLink(read_config(self.site / "agents" / name / "agent.yaml").broker, Address("north", name))

    async def lets_in(self, name: str) -> bool:
        try:
            async with self.link(name).session() as session:
                await session.send(b"{}", "boot-a", 0, 0)
        except LinkError:
            return False
        return True


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SiteBroker]:
    with SiteBroker(tmp_path) as running:
        yield running


def run(*words: str, broker: SiteBroker) -> int:
    return main(["site", *words, "--dir", str(broker.site), "--lang", "en"])


async def test_agent_joins_a_running_broker_and_is_revoked_from_it(
    broker: SiteBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await broker.lets_in("first")
    assert run("add-agent", "his-db-1", broker=broker) == 0
    assert "the broker has been told to reload" in capsys.readouterr().out
    await until_async(lambda: broker.lets_in("his-db-1"))
    kept = broker.link("his-db-1")
    async with broker.link("first").session():
        assert run("remove-agent", "his-db-1", broker=broker) == 0
        await until_async(lambda: broker.said("Reloading config") >= 2)
        with pytest.raises(LinkError):
            async with kept.session() as session:
                await session.send(b"{}", "boot-a", 0, 0)
    assert await broker.lets_in("first")
    assert agent_names(broker.site) == ["first"]
    assert not (broker.site / "agents" / "his-db-1").exists()
    before = read_site_folder(broker.site / "site")[0]
    assert list(before.revoked) == ["his-db-1"]
    assert abs(before.revoked["his-db-1"] / 1000 - datetime.now(UTC).timestamp()) < 600
    assert run("add-agent", "his-db-1", broker=broker) == 0
    after = read_site_folder(broker.site / "site")[0]
    assert (after.revoked, after.digest, after.parts) == ({}, before.digest, before.parts)


def test_nothing_is_revoked_while_nobody_can_note_it(broker: SiteBroker, capsys: pytest.CaptureFixture[str]) -> None:
    (broker.site / "site" / "revoked.json").write_text('{"his-db-7": "yesterday"}')
    assert run("remove-agent", "first", broker=broker) != 0
    assert "revoked.json:1: this cannot be read" in capsys.readouterr().err
    assert "/first:" in (broker.site / PASSWORDS).read_text() and agent_names(broker.site) == ["first"]


def test_second_of_two_equal_names_is_refused_and_the_first_keeps_its_password(broker: SiteBroker) -> None:
    secret = broker.site / "agents" / "first" / "credentials" / "broker-password"
    before = secret.read_text()
    with pytest.raises(NameInUse, match="there is an agent 'first' already"):
        add_agent(Placer(broker.site), broker.made, "first")
    assert run("add-agent", "first", broker=broker) == 2
    assert secret.read_text() == before


def test_agent_whose_name_begins_like_another_s_is_not_revoked_with_it(broker: SiteBroker) -> None:
    for name in ("first-2", "second"):
        assert run("add-agent", name, broker=broker) == 0
    assert run("remove-agent", "first", broker=broker) == 0
    users = [line.partition(":")[0] for line in (broker.site / PASSWORDS).read_text().splitlines()]
    assert users == ["collector", f"{broker.made.site}/first-2", f"{broker.made.site}/second"]
    assert agent_names(broker.site) == ["first-2", "second"]


def test_unknown_agent_is_told_with_those_there_are(broker: SiteBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("remove-agent", "his-db-9", broker=broker) == 2
    assert capsys.readouterr().err == "there is no agent 'his-db-9'; there are: first\n"


def test_agent_that_may_be_connected_still_is_trouble_and_not_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = SiteMade(site="north", hosts=("mqtt.hospital.local",))
    make_site(tmp_path, made, "first", datetime.now(UTC), lambda name: None)
    assert main(["site", "remove-agent", "first", "--dir", str(tmp_path), "--lang", "en"]) == 1
    out, err = capsys.readouterr()
    assert out == (
        "north/first is revoked\n"
        "the doctor and the page call it revoked within a minute; its data stay. What it watched still counts as missing:"
        " for what has left write 'retired', its date and why, in site/register.yaml\n"
    )
    assert err.startswith("no running broker was found here") and err.count("\n") == 1
    assert not (tmp_path / PASSWORDS).read_text().count("north/first:")


def test_collector_s_new_password_is_told_to_the_running_broker(
    broker: SiteBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    (broker.site / "collector/credentials/broker-password").unlink()
    assert run("init", "--name", broker.made.site, broker=broker) == 0
    assert "the broker has been told to reload" in capsys.readouterr().out
    until(lambda: broker.said("Reloading config") >= 1)


def spoil(path: Path) -> None:
    """Two good lines, the others overwritten: what a bad block leaves."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]) + bytes(range(128, 250)))


@pytest.mark.parametrize(("harm", "count"), [(Path.unlink, 4), (lambda path: path.write_text(""), 4), (spoil, 2)])
async def test_lost_or_damaged_passwords_are_made_again_of_those_that_the_site_keeps(
    broker: SiteBroker, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], object], count: int
) -> None:
    for name in ("second", "third", "gone"):
        assert run("add-agent", name, broker=broker) == 0
    assert run("remove-agent", "gone", broker=broker) == 0
    path = broker.site / PASSWORDS
    harm(path)
    reloads = broker.said("Reloading config")
    assert run("status", broker=broker) == 1
    assert f"✕ {PASSWORDS}: " in capsys.readouterr().out
    for words in (("add-agent", "fourth"), ("remove-agent", "third")):  # would shut all the others out
        assert run(*words, broker=broker) == 1
        told = capsys.readouterr().err
        assert str(path) in told and "run site init: it writes it anew" in told and told.count("\n") == 1
    assert run("init", "--name", "north", broker=broker) == 0
    said = capsys.readouterr().out
    assert "the broker has been told to reload" in said
    assert f"{PASSWORDS}: {count} users were given their kept passwords again: " in said
    users = sorted(line.partition(":")[0] for line in path.read_text().splitlines())
    assert users == ["collector", "north/first", "north/second", "north/third"]
    await until_async(lambda: asyncio.sleep(0, broker.said("Reloading config") > reloads))
    for name in ("first", "second", "third"):  # a reload that an earlier command asked for may have come first
        await until_async(partial(broker.lets_in, name))
    assert run("status", broker=broker) == 0
    assert run("init", "--name", "north", broker=broker) == 0
    assert capsys.readouterr().out.endswith(f"{broker.site}: the site is whole, nothing was changed\n")


def test_user_that_was_put_in_by_hand_outlives_the_mending(tmp_path: Path) -> None:
    made = SiteMade(site="north", hosts=("localhost",))
    make_site(tmp_path, made, "first", datetime.now(UTC), lambda name: None)
    own = password_line("collector-2", "a secret of the operator's own")
    (tmp_path / PASSWORDS).write_bytes(f"# by hand\n{own}\n".encode() + bytes(range(128, 250)))
    make_site(tmp_path, made, "first", datetime.now(UTC), lambda name: None)
    lines = (tmp_path / PASSWORDS).read_text().splitlines()
    assert lines[:2] == ["# by hand", own]
    assert [line.partition(":")[0] for line in lines[2:]] == ["collector", "north/first"]
    assert [one for one in examine(tmp_path, made, datetime.now(UTC)) if one.state == "bad"] == []


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(bytes(range(128, 250)))])
def test_agent_whose_password_is_lost_is_told_and_the_others_are_let_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], object]
) -> None:
    made = SiteMade(site="north", hosts=("localhost",))
    make_site(tmp_path, made, "first", datetime.now(UTC), lambda name: None)
    add_agent(Placer(tmp_path), made, "second")
    secret = tmp_path / "agents/second/credentials/broker-password"
    harm(secret)
    (tmp_path / PASSWORDS).unlink()
    assert main(["site", "init", "--dir", str(tmp_path), "--name", "north", "--lang", "en"]) == 1
    told = capsys.readouterr()
    assert str(secret) in told.err and "site remove-agent, then add-agent" in told.err and told.err.count("\n") == 1
    assert "2 users were given their kept passwords again: collector, north/first" in told.out
    assert main(["site", "init", "--dir", str(tmp_path), "--name", "north", "--lang", "en"]) == 1
    assert "whole" not in capsys.readouterr().out


class Killed(Exception):
    """Ends a command between two of its steps."""


class MortalPlacer(Placer):
    """Ends as by a kill after so many files were taken away."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(folder)
        self.left = number

    def remove(self, name: str) -> None:
        super().remove(name)
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize("number", [1, 2, 3])
def test_removal_that_a_kill_cut_off_lets_nobody_in_again(tmp_path: Path, number: int) -> None:
    made = SiteMade(site="north", hosts=("localhost",))
    make_site(tmp_path, made, "first", datetime.now(UTC), lambda name: None)
    for name in ("second", "third"):
        add_agent(Placer(tmp_path), made, name)
    with pytest.raises(Killed):
        remove_agent(MortalPlacer(tmp_path, number), made, "second", datetime.now(UTC))
    (tmp_path / PASSWORDS).unlink()
    make_site(tmp_path, made, "first", datetime.now(UTC), lambda name: None)
    users = [line.partition(":")[0] for line in (tmp_path / PASSWORDS).read_text().splitlines()]
    assert users == ["collector", "north/first", "north/third"]
    if number < 3:
        remove_agent(Placer(tmp_path), made, "second", datetime.now(UTC))
    assert [one for one in examine(tmp_path, made, datetime.now(UTC)) if one.state == "bad"] == []


def test_bundle_unpacks_to_an_agent_that_may_be_run_where_it_lies(broker: SiteBroker, tmp_path: Path) -> None:
    assert run("add-agent", "his-db-1", broker=broker) == 0
    with tarfile.open(fileobj=io.BytesIO((broker.site / "agents" / "his-db-1.tar").read_bytes())) as bundle:
        members = {member.name: (member.mode, member.uid) for member in bundle}
        bundle.extractall(tmp_path, filter="tar")
    assert members == {
        "his-db-1": (0o755, 0),
        "his-db-1/credentials": (0o700, 0),
        "his-db-1/agent.yaml": (0o644, 0),
        "his-db-1/ca.pem": (0o644, 0),
        "his-db-1/credentials/broker-password": (0o600, 0),
    }
    config = read_config(tmp_path / "his-db-1" / "agent.yaml")
    link = MqttLink(config.broker, Address("north", "his-db-1"))

    async def send() -> None:
        async with link.session() as session:
            await session.send(b"{}", "boot-a", 0, 0)

    asyncio.run(send())


async def test_renewed_certificate_meets_new_connections_and_breaks_no_old_one(broker: SiteBroker) -> None:
    config = read_config(broker.site / "agents" / "first" / "agent.yaml")
    before = ask_expiry(config.broker)
    assert renew(Placer(broker.site), broker.made, datetime.now(UTC), all_of_them=False) == []
    async with broker.link("first").session() as session:
        later = datetime.now(UTC) + timedelta(hours=1)  # so that the new one's term is another
        assert len(renew(Placer(broker.site), broker.made, later, all_of_them=True)) == 2
        assert reload_broker(broker.site)
        await until_async(lambda: asyncio.to_thread(lambda: ask_expiry(config.broker) > before))
        await session.send(b"{}", "boot-a", 0, 0)
    assert await broker.lets_in("first")


def test_what_ends_within_sixty_days_is_renewed_without_being_asked(broker: SiteBroker) -> None:
    later = datetime.now(UTC) + timedelta(days=700)
    assert renew(Placer(broker.site), broker.made, later, all_of_them=False) == [
        "mosquitto/certs/broker.pem",
        "collector/page.pem",
    ]


def test_clock_before_the_authority_is_a_sentence_and_changes_nothing(broker: SiteBroker) -> None:
    certificate = broker.site / "mosquitto" / "certs" / "broker.pem"
    before = certificate.read_bytes()
    earlier = datetime.now(UTC) - timedelta(days=30)
    with pytest.raises(AuthorityError, match="before the authority begins at"):
        renew(Placer(broker.site), broker.made, earlier, all_of_them=True)
    with pytest.raises(AuthorityError, match="the authority ended on"):
        renew(Placer(broker.site), broker.made, earlier + timedelta(days=4000), all_of_them=True)
    assert certificate.read_bytes() == before


def test_agent_that_a_kill_left_half_made_is_told_and_finished(
    broker: SiteBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = broker.site / "agents" / "half" / "credentials"
    folder.mkdir(parents=True)
    assert run("status", broker=broker) == 1
    assert "✕ half: half-made; run site add-agent half again" in capsys.readouterr().out
    assert run("add-agent", "half", broker=broker) == 0
    assert run("status", broker=broker) == 0
    until(lambda: asyncio.run(broker.lets_in("half")))


def everything_is_of(folder: Path, user: int) -> bool:
    return {path.stat().st_uid for path in folder.rglob("*")} == {user}


@pytest.mark.parametrize("starter", [["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], []])
def test_site_of_an_ordinary_user_is_run_by_that_user_and_root_may_add_to_it(starter: list[str]) -> None:
    with open_folder() as home:
        home.chmod(0o777)
        port = free_port()
        site = home / "hospital"
        words = ["--name", "north", "--host", "localhost", "--agent", "first", "--broker-port", port]
        code, _, complaints = run_unprivileged("site", "init", "--dir", site, *words)
        assert code == 0, complaints
        assert everything_is_of(site, 65534)
        for word in starter[:1]:
            program(word, "util-linux")
        argv = [*starter, program("mosquitto", "mosquitto"), "-c", site / "mosquitto" / "mosquitto.conf"]
        with Daemon(argv, home, lambda: answers(port)) as broker:
            until(lambda: " running" in broker.log.read_text())
            assert main(["site", "add-agent", "second", "--dir", str(site), "--lang", "en"]) == 0
            assert everything_is_of(site, 65534)
            for name in ("first", "second"):
                link = MqttLink(read_config(site / "agents" / name / "agent.yaml").broker, Address("north", name))
                until(lambda: asyncio.run(can_send(link)))  # noqa: B023 - called before the next one


async def can_send(link: MqttLink) -> bool:
    try:
        async with link.session() as session:
            await session.send(b"{}", "boot-a", 0, 0)
    except LinkError:
        return False
    return True


def killed_after(folder: Path, made: SiteMade, name: str, number: int) -> None:
    """Add an agent in a process that ends as by kill -9 when `number` files are in place."""
    child = os.fork()
    if child == 0:
        left = [number]

        def count(path: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

        add_agent(Placer(folder, count), made, name)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_agent_killed_at_any_write_is_finished_by_the_same_command(tmp_path: Path) -> None:
    made = SiteMade(site="north", hosts=("localhost",))
    make_site(tmp_path / "site", made, "first", datetime.now(UTC), lambda name: None)
    for number in range(5):
        name = f"killed-{number}"
        killed_after(tmp_path / "site", made, name, number)
        assert name not in agent_names(tmp_path / "site")
        add_agent(Placer(tmp_path / "site"), made, name)
    assert [one for one in examine(tmp_path / "site", made, datetime.now(UTC)) if one.state == "bad"] == []


def test_pair_that_a_kill_left_half_renewed_is_told_and_mended(tmp_path: Path) -> None:
    made = SiteMade(site="north", hosts=("localhost",))
    make_site(tmp_path, made, "first", datetime.now(UTC), lambda name: None)
    (tmp_path / "mosquitto" / "certs" / "broker.key").write_bytes(new_key())
    [found] = [one for one in examine(tmp_path, made, datetime.now(UTC)) if one.state == "bad"]
    assert found.text == "certificate and key are not of one pair; run site renew"
    assert renew(Placer(tmp_path), made, datetime.now(UTC), all_of_them=False) == ["mosquitto/certs/broker.pem"]
    assert [one for one in examine(tmp_path, made, datetime.now(UTC)) if one.state != "good"] == []


def test_gateway_is_told_where_its_devices_go(broker: SiteBroker) -> None:
    assert run("add-agent", "gateway-1", "--role", "gateway", broker=broker) == 0
    path = broker.site / "agents" / "gateway-1" / "agent.yaml"
    assert "infravitals-agent sample snmp_device" in path.read_text()
    assert {section.name for section in read_config(path).sources} == {
        "host_clock",
        "host_cpu",
        "host_disk",
        "host_memory",
        "host_network",
        "host_uptime",
    }
