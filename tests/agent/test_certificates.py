"""When certificates end, read from files and from what a real broker shows, as openssl says it too."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from servers import Authority, Mosquitto, free_port, program

from agent.broker import Broker, Tls
from agent.certificates import ask_expiry, certificates_of, read_expiry
from agent.errors import LinkError


def openssl_end(path: Path) -> float:
    command = [program("openssl", "openssl"), "x509", "-enddate", "-noout", "-in", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return datetime.strptime(text.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC).timestamp()


def test_expiry_of_a_file_is_what_openssl_says(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("broker")
    assert read_expiry(str(issued.certificate)) == openssl_end(issued.certificate)
    both = tmp_path / "both.pem"
    both.write_bytes(issued.certificate.read_bytes() + authority.certificate.read_bytes())
    assert read_expiry(str(both)) == min(map(openssl_end, (issued.certificate, authority.certificate)))


def test_dates_after_2049_are_written_another_way_and_read_too(tmp_path: Path) -> None:
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "20000"]
    path = tmp_path / "far.pem"
    files = ["-keyout", str(tmp_path / "key"), "-out", str(path), "-subj", "/CN=far"]
    subprocess.run([program("openssl", "openssl"), *words, *files], check=True, capture_output=True)
    assert read_expiry(str(path)) == openssl_end(path) > 2_524_608_000


def test_broker_shows_its_certificate_also_to_who_does_not_trust_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = authority.issue("broker")
    other = Authority(tmp_path / "other")
    settings = (
        f"allow_anonymous true\ncafile {authority.certificate}\ncertfile {served.certificate}\nkeyfile {served.key}"
    )
    with Mosquitto(tmp_path / "mosquitto", settings) as mosquitto:
        broker = Broker("127.0.0.1", port=mosquitto.port, tls=Tls(ca=str(other.certificate)))
        found = dict(certificates_of(broker))
    assert found == {"ca": openssl_end(other.certificate), "broker": openssl_end(served.certificate)}


def test_what_cannot_be_had_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(LinkError, match=r"key\.pem"):
        read_expiry(str(tmp_path / "key.pem"))
    (tmp_path / "cut.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    with pytest.raises(LinkError, match=r"cut\.pem"):
        read_expiry(str(tmp_path / "cut.pem"))
    with pytest.raises(LinkError, match=r"127\.0\.0\.1"):
        ask_expiry(Broker("127.0.0.1", port=free_port(), tls=Tls()))


def test_without_tls_there_are_no_certificates() -> None:
    assert list(certificates_of(Broker("127.0.0.1"))) == []
