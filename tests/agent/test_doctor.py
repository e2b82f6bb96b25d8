"""The agent's doctor at a real broker with TLS and access control; every finding is provoked for real."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctored import AGENT_PASSWORD, Guarded
from servers import Authority, until
from unprivileged import ROOT, open_folder

from agent.broker_check import check_certificates
from agent.checkup import Finding, check_clock, check_disk, is_well, run_checks
from agent.cli import main
from agent.config import read_config
from agent.doctor import check_spool, examine
from agent.language import choose
from agent.points import Point
from agent.sources import Output
from agent.spool import Spool


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


def findings_of(guarded: Guarded, *checks: str) -> list[Finding]:
    found = examine(read_config(guarded.agent), guarded.agent)
    assert AGENT_PASSWORD not in repr(found)
    return [finding for finding in found if finding.check in checks]


def states(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.state) for finding in findings]


ONLINE = ("broker", "anonymous", "permissions", "certificates")


def test_nothing_is_found_at_a_broker_as_it_should_be(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    with guarded.broker:
        found = findings_of(guarded, *ONLINE, "secrets", "disk", "version", "spool")
    texts = [f"{finding.check} {finding.state}: {finding.text}" for finding in found if finding.check in ONLINE]
    assert texts == [
        f"broker good: 127.0.0.1:{guarded.broker.port} lets user hospital/his-db-1 in",
        "anonymous good: nobody comes in without a login",
        "permissions good: writing infravitals/v1/hospital/doctor-nobody/points is refused",
        "permissions good: writing infravitals/v1/hospital/his-db-1/receipt is refused",
        "certificates good: the authority's certificate has 90.0 days left",
        "certificates good: the broker's certificate has 90.0 days left",
    ]
    assert is_well(found)
    assert ("spool", "note") in states(found), "the agent has not run yet"


def test_broker_that_lets_anyone_write_is_found(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, acl=None)
    with guarded.broker:
        found = findings_of(guarded, "permissions")
    assert [finding.text for finding in found] == [
        "the broker lets anyone write: user hospital/his-db-1 wrote infravitals/v1/hospital/doctor-nobody/points,"
        " and can speak in another agent's name",
        "the broker lets anyone write: user hospital/his-db-1 wrote infravitals/v1/hospital/his-db-1/receipt,"
        " and can forge receipts, upon which data are deleted as if they were stored",
    ]
    assert {finding.mend for finding in found} == {"mosquitto.conf: acl_file → deploy/mosquitto/infravitals.acl"}


def test_receipts_that_can_be_forged_are_found_alone(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, acl="pattern readwrite infravitals/v1/%u/#\n")
    with guarded.broker:
        found = findings_of(guarded, "permissions")
    assert states(found) == [("permissions", "good"), ("permissions", "bad")]


def test_anonymous_login_is_found(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, anonymous="true")
    with guarded.broker:
        (found,) = findings_of(guarded, "anonymous")
    assert (found.state, found.mend) == ("bad", "mosquitto.conf: allow_anonymous false")


def test_wrong_password_foreign_authority_and_a_broker_that_is_away_are_each_one_sentence(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    away = findings_of(guarded, *ONLINE)
    assert states(away) == [("broker", "bad"), ("certificates", "good"), ("certificates", "bad")]
    assert "connection refused" in away[0].text
    assert away[0].mend == f"nc -vz 127.0.0.1 {guarded.broker.port}\nssh 127.0.0.1 systemctl status mosquitto"
    assert not [finding for finding in away if finding.check in ("anonymous", "permissions")], "nobody can tell"
    with guarded.broker:
        (tmp_path / "agent.password").write_text("wrong")
        (found,) = findings_of(guarded, "broker")
        assert found.state == "bad" and "the login was refused (user hospital/his-db-1)" in found.text
        assert found.mend == (
            "infravitals site remove-agent his-db-1 --dir <…>; infravitals site add-agent his-db-1 --dir <…>"
            "  # where site init made the site\n"
            "mosquitto_passwd /etc/mosquitto/infravitals.passwords hospital/his-db-1 && systemctl reload mosquitto"
            "  # where the broker was set up by hand"
        )
        other = Authority(tmp_path / "other").certificate
        guarded.agent.write_text(guarded.agent.read_text().replace(str(guarded.authority.certificate), str(other)))
        (found,) = findings_of(guarded, "broker")
    assert found.state == "bad" and "its certificate is not trusted" in found.text


def test_certificates_that_end_soon_are_found_with_the_command_that_shows_them(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, days=12)
    with guarded.broker:
        found = findings_of(guarded, "certificates")
    assert [(finding.state, finding.text) for finding in found] == [
        ("bad", "the authority's certificate has 12.0 days left"),
        ("bad", "the broker's certificate has 12.0 days left"),
    ]
    assert found[0].mend == f"openssl x509 -noout -subject -enddate -in {guarded.authority.certificate}"
    shown = subprocess.run(["/bin/sh", "-c", found[0].mend], capture_output=True, text=True, check=True).stdout
    assert "notAfter=" in shown, "the command works as it is printed"


def test_certificate_that_ended_is_told_by_how_long_ago(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, days=12)
    ahead = time.time() + 15 * 86400
    with guarded.broker, pytest.MonkeyPatch.context() as patched:
        patched.setattr("agent.broker_check.time.time", lambda: ahead)
        told = [finding.text for finding in check_certificates(read_config(guarded.agent).broker)]
    assert told == [
        f"the {whose} certificate ended 3.0 days ago, or this machine's clock is wrong"
        for whose in ("authority's", "broker's")
    ]


def test_secrets_that_others_may_read_or_nobody_can_are_found(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    secret = tmp_path / "agent.password"
    assert states(findings_of(guarded, "secrets")) == [("secrets", "good")] * 2
    secret.chmod(0o644)
    (tmp_path / "agent").chmod(0o755)
    found = findings_of(guarded, "secrets")
    assert [(finding.state, finding.mend) for finding in found] == [
        ("bad", f"chmod o= {secret}"),
        ("bad", f"chmod o= {tmp_path / 'agent'}"),
    ]
    for finding in found:
        subprocess.run(["/bin/sh", "-c", finding.mend], check=True)
    assert states(findings_of(guarded, "secrets")) == [("secrets", "good")] * 2
    secret.unlink()
    missing, _ = findings_of(guarded, "secrets")
    assert missing.state == "bad" and str(secret) in missing.text


AS_ANOTHER_USER = """
import os, sys
from agent.broker import Broker, Secret
from agent.checkup import check_secrets
from agent.language import choose
if os.geteuid() == 0:
    os.setuid(65534)
choose("en")
(found,) = check_secrets(Broker("127.0.0.1", password=Secret(file=sys.argv[1])))
print(found.state, found.text)
"""


def test_secret_that_this_user_may_not_read_is_found() -> None:
    with open_folder() as folder:
        secret = folder / "broker.password"
        secret.write_text(AGENT_PASSWORD)
        secret.chmod(0o600 if os.geteuid() == 0 else 0)
        command = [sys.executable, "-c", AS_ANOTHER_USER, str(secret)]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == f"bad cannot read {secret}: Permission denied\n"


def test_secret_that_only_the_service_is_handed_is_said_and_not_blamed(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    told = guarded.agent.read_text()
    guarded.agent.write_text(told.replace(f"file: {tmp_path / 'agent'}.password", "credential: broker-password"))
    found = findings_of(guarded, "secrets")[0]
    assert found.state == "note" and "hand it to this command as to the service" in found.text
    assert found.mend.startswith("systemd-run --pipe -p LoadCredential=broker-password:<file> ")


def test_doctor_beside_a_running_agent_takes_nothing_from_it(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    log, spool = tmp_path / "run.log", tmp_path / "agent" / "spool.sqlite"
    environment = {**os.environ, "INFRAVITALS_LANG": "en"}
    words = [sys.executable, "-m", "agent.cli", "run", "-c", str(guarded.agent)]
    with guarded.broker, log.open("w") as output:
        agent = subprocess.Popen(words, env=environment, stdout=output, stderr=output)
        try:
            until(lambda: spool.exists() and states(findings_of(guarded, "spool")) == [("spool", "good")])
            found = findings_of(guarded, *ONLINE, "spool")
            until(lambda: "batches wait" in findings_of(guarded, "spool")[0].text)
        finally:
            agent.terminate()
            assert agent.wait(120) == 0
    assert is_well(found)
    assert "another agent" not in log.read_text() and "in use by another process" not in log.read_text()
    assert "Traceback" not in log.read_text()


def test_spool_whose_data_do_not_get_through_is_found(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    spool = Spool(
        path,
        max_bytes=2**25,
        max_age_seconds=1e9,
        new_boot=lambda: "b",
        clock=lambda: time.time() - 7200,
    )
    for _ in range(3):
        spool.put([Point("host_uptime", {"asset": "a"}, {"uptime_seconds": 1.0}, 1)])
    spool.close()
    before = path.stat()
    (found,) = check_spool(path, tmp_path / "agent.yaml")
    assert (found.state, found.mend) == ("bad", f"infravitals-agent check -c {tmp_path}/agent.yaml")
    assert found.text.startswith(f"3 batches wait in {path}, the oldest for 72")
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
    assert [file.name for file in tmp_path.iterdir()] == ["spool.sqlite"]


def test_spool_that_is_none_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "spool.sqlite").write_bytes(b"no database at all" * 100)
    (found,) = check_spool(tmp_path / "spool.sqlite", tmp_path / "agent.yaml")
    assert found.state == "note"


def test_disk_without_room_is_found(tmp_path: Path) -> None:
    (found,) = check_disk(tmp_path / "not" / "there", needed_bytes=2**60)
    assert found.state == "bad" and found.text.startswith(f"{tmp_path} has ")
    assert found.mend == f"du -xh --max-depth=2 {tmp_path} | sort -h | tail"
    assert next(iter(check_disk(tmp_path, needed_bytes=1))).state in ("good", "note")


CHRONY = "C0A80101,192.0.2.1,2,1790000000.0,{slow},0.0,0.0,0.0,0.0,0.0,0.0,0.0,64.0,{leap}\n"
CHRONY_SOURCES = "^,{state},192.0.2.1,1,6,377,12,0.0,0.0,0.0\n"


@pytest.mark.parametrize(
    ("slow", "leap", "state", "expected"),
    [
        ("0.000012", "Normal", "*", ("good", "the clock is off by -0.000012 s", "")),
        ("-90.5", "Normal", "*", ("bad", "the clock is off by +90.500 s", "chronyc makestep")),
        (
            "0.0",
            "Not synchronised",
            "?",
            ("bad", "the clock is not synchronised", "chronyc sources -v; chronyc makestep"),
        ),
    ],
)
def test_clock_by_what_chrony_says(slow: str, leap: str, state: str, expected: tuple[str, str, str]) -> None:
    async def chronyc(argv: tuple[str, ...], timeout_seconds: float) -> Output:
        """A fake in chronyc(1)'s CSV; the source's own tests ask a real chronyd."""
        text = CHRONY.format(slow=slow, leap=leap) if argv[-1] == "tracking" else CHRONY_SOURCES.format(state=state)
        return Output(text, "", 0)

    (found,) = check_clock(chronyc)
    assert (found.state, found.text, found.mend) == expected


def test_check_that_hangs_is_a_finding_and_holds_up_nobody() -> None:
    release = threading.Event()

    def hang() -> Iterator[Finding]:
        yield Finding("slow", "good", "half of it")
        release.wait(120)

    found = run_checks([("slow", hang), ("quick", lambda: [Finding("quick", "good", "done")])], deadline_seconds=2)
    release.set()
    assert [(finding.check, finding.state, finding.text) for finding in found] == [
        ("slow", "good", "half of it"),
        ("slow", "bad", "no result within 2 s"),
        ("quick", "good", "done"),
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_check_that_breaks_off_is_a_finding_too() -> None:
    def fall() -> Iterator[Finding]:
        yield Finding("odd", "good", "half of it")
        raise ZeroDivisionError

    found = run_checks([("odd", fall), ("quick", lambda: [Finding("quick", "good", "done")])])
    assert [(finding.check, finding.state, finding.text) for finding in found] == [
        ("odd", "good", "half of it"),
        ("odd", "bad", "this check broke off: a fault of the program"),
        ("quick", "good", "done"),
    ]


def test_command_prints_findings_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guarded = Guarded(tmp_path, acl=None)
    command = ["doctor", "-c", str(guarded.agent), "--lang", "en"]
    with guarded.broker:
        assert main(command) == 1
        text = capsys.readouterr().out
        assert main([*command, "--format", "json"]) == 1
        found = json.loads(capsys.readouterr().out)
    assert "✗ permissions: the broker lets anyone write" in text
    assert "    → mosquitto.conf: acl_file → deploy/mosquitto/infravitals.acl" in text
    assert found["is_well"] is False
    assert {"check", "state", "text", "mend"} == set(found["findings"][0])
    choose("zh")
    with guarded.broker:
        assert main([*command[:-2], "--lang", "zh"]) == 1
    assert "消息服务器让任何人都能写" in capsys.readouterr().out
