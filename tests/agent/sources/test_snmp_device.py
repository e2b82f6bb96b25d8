"""snmp_device with real agents: several targets in one section, each on its own, and mistakes of the configuration."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from declared import undeclared
from servers import until_async
from snmpd import AUTH_PASSWORD, COMMUNITY, PRIV_PASSWORD, Snmpd, free_udp_port, users
from snmpnet import LldpPair

from agent import language
from agent.broker import Secret
from agent.config import SourceSection, read_config
from agent.documents import FileMistakes, build, parse_document
from agent.run import gather_once
from agent.snmp.credentials import Credential
from agent.snmp.profile import emitted, load_profiles
from agent.sources import Incomplete, Reading, SourceError, Surroundings
from agent.sources.snmp_device import Config, Source, Target

SOURCE = "snmp_device"


@pytest.fixture
def english() -> Iterator[None]:
    language.choose("en")
    yield
    language.choose(None)


@pytest.fixture(scope="module")
def snmpd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snmpd]:
    with Snmpd(tmp_path_factory.mktemp("snmpd"), users()) as daemon:
        yield daemon


def read(text: str) -> Config:
    return build(parse_document(text, "agent.yaml"), Config)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name, text in (("community", COMMUNITY), ("auth", AUTH_PASSWORD), ("priv", PRIV_PASSWORD)):
        (tmp_path / name).write_text(f"{text}\n")
    return tmp_path


def configured(snmpd: Snmpd, secrets: Path) -> Config:
    return read(f"""
timeout_seconds: 1
retries: 1
credentials:
  ward: {{community: {{file: {secrets}/community}}}}
  core: {{version: "3", user: user-sha256-aes256, auth: sha256, auth_password: {{file: {secrets}/auth}}, priv: aes256, priv_password: {{file: {secrets}/priv}}}}
  wrong: {{community: {{file: {secrets}/auth}}}}
targets:
  - {{asset: ward-switch, host: 127.0.0.1, port: {snmpd.port}, credential: ward}}
  - {{asset: core-switch, host: localhost, port: {snmpd.port}, credential: core}}
  - {{asset: dead-switch, host: 127.0.0.1, port: {free_udp_port()}, credential: ward}}
  - {{asset: shut-switch, host: 127.0.0.2, port: {free_udp_port()}, credential: wrong}}
""")


async def test_each_target_is_gathered_on_its_own(snmpd: Snmpd, secrets: Path, tmp_path: Path) -> None:
    section = SourceSection(SOURCE, Source, configured(snmpd, secrets))
    watches = section.watches(Surroundings("gateway", state_directory=tmp_path))
    assert [watch.label for watch in watches] == [
        f"{SOURCE}/{asset}" for asset in ("ward-switch", "core-switch", "dead-switch", "shut-switch")
    ]
    assert all(watch.spread_seconds == 4.0 for watch in watches)
    gathered = {watch.target: outcome for watch, outcome in await gather_once(watches, 0.1)}
    for asset in ("ward-switch", "core-switch"):
        outcome = gathered[asset]
        assert outcome.error is None
        assert {reading.asset for reading in outcome.readings} == {asset}
        assert not undeclared(SOURCE, outcome.readings)
        names = {reading.name for reading in outcome.readings}
        assert {"net_interface", "device_load", "filesystem", "host_uptime", "poll"} <= names
        assert any("in_bits_per_second" in reading.fields for reading in outcome.readings)
    for asset in ("dead-switch", "shut-switch"):
        assert isinstance(gathered[asset].error, Incomplete)
        [poll] = gathered[asset].readings
        assert (poll.name, poll.asset, poll.fields["is_answering"]) == ("poll", asset, False)


async def test_device_that_refuses_our_user_is_not_counted_as_watched(
    snmpd: Snmpd, secrets: Path, tmp_path: Path, english: None
) -> None:
    """It answers, but nothing of it can be read: a wrong key must not look like coverage."""
    (tmp_path / "wrong").write_text("no password of this user\n")
    wrong = Credential(
        version="3", user="user-sha256-aes128", auth="sha256", auth_password=Secret(file=str(tmp_path / "wrong"))
    )
    config = Config(
        credentials={"core": wrong},
        targets=(Target(asset="shut-switch", host="127.0.0.1", port=snmpd.port),),
    )
    [(_, outcome)] = await gather_once(SourceSection(SOURCE, Source, config).watches(Surroundings("gateway")), 0.1)
    assert isinstance(outcome.error, Incomplete) and "refuses v3 user-sha256-aes128" in str(outcome.error)
    [poll] = outcome.readings
    assert (poll.name, poll.asset, poll.fields["is_answering"]) == ("poll", "shut-switch", False)


async def test_two_targets_with_one_engine_id_are_named(
    snmpd: Snmpd, secrets: Path, english: None, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"""
credentials: {{core: {{version: "3", user: user-sha1, auth: sha1, auth_password: {{file: {secrets}/auth}}}}}}
targets: [{{asset: first, host: 127.0.0.1, port: {snmpd.port}}}, {{asset: second, host: localhost, port: {snmpd.port}}}]
"""
    watches = SourceSection(SOURCE, Source, read(text)).watches(Surroundings("gateway"))
    await gather_once(watches, 0.01)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and "have the same SNMPv3 engine id" in said[0]
    assert "first" in said[0] and "second" in said[0]


async def test_neighbours_that_lldpd_hears_are_managed_or_not(tmp_path: Path) -> None:
    """Two real lldpd on one link; what the left one tells its snmpd about the right one."""
    pair = LldpPair(tmp_path)
    try:
        pair.start()
        for peers, is_managed in (("other-switch", False), ("station-right", True)):
            poll = await pair.open(peers)
            found: list[Reading] = []

            async def is_heard(poll: Source = poll, found: list[Reading] = found) -> bool:
                with pair.inside():
                    with contextlib.suppress(SourceError):
                        found.extend(one for one in await poll.collect() if one.name == "neighbour")
                    await poll.close()
                    await poll.open()
                return bool(found)

            await until_async(is_heard, 120)
            assert not undeclared(SOURCE, found)
            assert found[0].fields == {"system_name": "station-right", "is_managed": is_managed}
            await poll.close()
    finally:
        pair.stop()


async def test_stations_that_arp_knows_are_managed_or_not(tmp_path: Path) -> None:
    """The kernel's own table of a real host, told by a real snmpd."""
    pair = LldpPair(tmp_path)
    try:
        pair.start()
        for peers, is_managed in (("other-switch", False), ("192.0.2.2", True)):
            poll = await pair.open(peers, "stations")
            found: list[Reading] = []

            async def is_heard(poll: Source = poll, found: list[Reading] = found) -> bool:
                pair.speak()
                with pair.inside():
                    with contextlib.suppress(SourceError):
                        found.extend(await poll.collect())
                    await poll.close()
                    await poll.open()
                return any(one.fields.get("system_name") == "192.0.2.2" for one in found)

            await until_async(is_heard, 120)
            assert not undeclared(SOURCE, found)
            [told, *_] = [one for one in found if one.fields.get("system_name") == "192.0.2.2"]
            assert told.fields["is_managed"] is is_managed
            await poll.close()
    finally:
        pair.stop()


async def test_missing_secret_is_said_without_it(snmpd: Snmpd, secrets: Path, english: None) -> None:
    config = configured(snmpd, secrets)
    (secrets / "community").unlink()
    [watch, *_] = SourceSection(SOURCE, Source, config).watches(Surroundings("gateway"))
    [(_, outcome)] = await gather_once([watch])
    assert str(outcome.error) == (
        f"community: cannot read the password file {secrets}/community: it does not exist; mend it or change community"
    )


HEAD = "credentials: {a: {community: {env: X}}, b: {community: {env: X}}}\n"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("credentials: {a: {community: public}}", "do not write the secret itself here"),
        ("credentials: {a: {version: '3'}}", "version 3 needs a user"),
        ("credentials: {a: {version: '3', user: u, priv: aes128, priv_password: {env: X}}}", "priv needs auth"),
        ("credentials: {a: {version: '3', user: u, auth: sha1}}", "auth and auth_password go together"),
        ("credentials: {a: {version: '2c'}}", "community is missing"),
        ("credentials: {a: {version: 2c, user: u, community: {env: X}}}", "belong to version 3"),
        (HEAD + "targets: [{asset: a, host: h}]", "a needs a credential"),
        (HEAD + "targets: [{asset: a, host: h, credential: c}]", "no credential 'c'"),
        (HEAD + "targets: [{asset: A b, host: h, credential: a}]", "'A b' cannot be a name"),
        (
            HEAD + "targets: [{asset: a, host: h, credential: a}, {asset: a, host: i, credential: a}]",
            "the asset 'a' stands twice",
        ),
        (
            HEAD + "targets: [{asset: a, host: h, credential: a}, {asset: b, host: H, credential: a}]",
            "H:161 stands twice",
        ),
        (HEAD + "targets: [{asset: a, host: h, credential: a, profiles: [interface]}]", "did you mean 'interfaces'"),
        (HEAD + "targets: [{asset: a, host: h, credential: a, prot: 1}]", "did you mean 'port'"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, mistake: str, english: None) -> None:
    with pytest.raises(FileMistakes) as caught:
        read(text)
    assert mistake in str(caught.value) and str(caught.value).startswith("agent.yaml:")
    assert "public" not in str(caught.value)


def test_nothing_is_polled_without_targets() -> None:
    assert SourceSection(SOURCE, Source, Config()).watches(Surroundings("gateway")) == []


def test_base_agent_loads_no_snmp_library(tmp_path: Path) -> None:
    """Also with the source configured, until its first round."""
    code = (
        "import sys; from agent.config import default_sources, load_kind; default_sources(); "
        "print([name for name in sys.modules if name.partition('.')[0] in ('gufo', 'pysnmp')])"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_agent_yaml_with_targets_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(
        "site: s\nagent: gateway\nbroker: {host: h}\nsources:\n  snmp_device:\n"
        "    credentials: {a: {community: {env: X}}}\n    targets: [{asset: a, host: h}, {asset: b, host: i}]\n"
    )
    assert [watch.target for watch in read_config(path).watches()] == ["a", "b"]


def test_catalogue_names_this_source_for_what_its_profiles_give() -> None:
    from agent.catalogue import load

    own = {"host_uptime.uptime_seconds", "management_access.is_answering"}
    own |= {f"poll.{field}" for field in ("is_answering", "rtt_seconds", "rows_count", "retries_count")}
    given = own | {f"{signal}.{field}" for profile in load_profiles().values() for signal, field in emitted(profile)}
    named = {
        f"{name}.{field}"
        for name, measurement in load().measurements.items()
        for field in measurement.fields
        if SOURCE in measurement.emitters(field)
    }
    assert named == given


def test_many_targets_need_no_more_files_than_the_system_allows() -> None:
    import resource

    from agent.sources.snmp_device import _allow_sockets

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        _allow_sockets()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
