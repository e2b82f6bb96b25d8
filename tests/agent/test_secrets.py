"""Secrets by reference: where they stand, what is none, who else may read them."""

import os
from pathlib import Path

import msgspec
import pytest

from agent.broker import Broker, Secret, Tls, refuse_unfit
from agent.documents import FileMistakes, find_mistakes, parse_document
from agent.errors import LinkError, UnfitSecret
from agent.language import speaking
from collector.config import CollectorFile, StoreSection

EXAMPLES = [
    "changeme",
    "CHANGE-ME",
    "change_me\n",
    "<password>",
    "Secret!",
    "xxxxxxxx",
    "********",
    "你的密码",
    "admin",
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_word_out_of_an_example_is_refused_without_being_shown(text: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(text)
    for secret, environment in (
        (Secret(file=str(tmp_path / "secret")), {}),
        (Secret(env="BROKER"), {"BROKER": text.strip()}),
        (Secret(credential="secret"), {"CREDENTIALS_DIRECTORY": str(tmp_path)}),
    ):
        with (
            speaking("en"),
            pytest.raises(UnfitSecret, match="it is an example's word that everybody knows") as refusal,
        ):
            secret.read(environment)
        said = str(refusal.value).replace(str(tmp_path / "secret"), "").partition(": it ")[0]
        assert text.strip() not in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("one\ntwo\n", "it has more than one line"),
        ("ab" * 2049, "it is longer"),
    ],
)
def test_empty_file_and_the_wrong_file_are_refused(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(text)
    with speaking("en"), pytest.raises(UnfitSecret, match=why):
        Secret(file=str(tmp_path / "secret")).read()


@pytest.mark.parametrize("text", ["correct horse", "q4Jw==", "我的密码很长也很好", "changeme-not-7f3a"])
def test_secret_of_one_s_own_is_taken_as_it_is(text: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\ufeff" + text + "\r\n")
    assert Secret(file=str(tmp_path / "secret")).read() == text


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o604, 1)])
def test_file_that_everybody_may_read_is_warned_of_once(
    mode: int, warnings: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("secret", "client.key"):
        (tmp_path / name).write_text("correct horse")
        (tmp_path / name).chmod(mode)
    tls = Tls(certificate="client.pem", key=str(tmp_path / "client.key"))
    with speaking("en"):
        Broker("mqtt.example", password=Secret(file=str(tmp_path / "secret")), tls=tls).begin()
    assert [record.getMessage().partition(" holds")[0] for record in caplog.records] == [
        str(tmp_path / name) for name in ("secret", "client.key")
    ] * warnings
    assert "correct horse" not in caplog.text


def test_secret_that_is_not_there_yet_is_no_reason_not_to_start() -> None:
    refuse_unfit(None, Secret(file="/nowhere/secret"), Secret(env="NOT_SET_ANYWHERE"), Secret(credential="mqtt"))
    with pytest.raises(LinkError):
        Secret(file="/nowhere/secret").read(os.environ)


@pytest.mark.parametrize(
    "broker",
    [
        "{host: h, password: CANARY}",
        "{host: h, password: [CANARY]}",
        "{host: h, password: {file: a, value: CANARY}}",
        "{host: h, password: {env: 'CANARY!'}}",
        "{host: h, passwd: CANARY}",
        "{host: 'mqtt://u:CANARY@h'}",
        "'mqtt://u:CANARY@h:8883'",
        "{host: ['mqtt://u:CANARY@h']}",
        "{host: 'u:CANARY@h', port: none}",
        "{host: h, tls: {ca: a, token: CANARY}}",
    ],
)
def test_secret_written_into_the_file_itself_is_complained_of_and_not_shown(broker: str) -> None:
    document = parse_document(f"site: main\nbroker: {broker}\n", "collector.yaml")
    mistakes = list(find_mistakes(document, document.value, CollectorFile))
    assert mistakes
    assert "CANARY" not in "\n".join(map(str, mistakes))


def test_secret_in_a_file_that_is_no_yaml_is_not_shown() -> None:
    for text in (
        "broker: {password: CANARY",
        "broker: password: CANARY",
        "password: CANARY\n\t- x",
        "a: &x CANARY\nb: *y",
    ):
        with pytest.raises(FileMistakes) as trouble:
            parse_document(text, "collector.yaml")
        assert "CANARY" not in str(trouble.value)


def test_configuration_s_own_words_hold_the_place_alone() -> None:
    broker = msgspec.convert({"host": "h", "password": {"env": "BROKER_PASSWORD"}}, Broker)
    assert "BROKER_PASSWORD" in repr(broker)


def test_secrets_in_a_store_s_section_are_looked_at_too(tmp_path: Path) -> None:
    class Config(msgspec.Struct):
        url: str
        token: Secret
        password: Secret | None = None

    (tmp_path / "token").write_text("changeme")
    section = StoreSection(
        "a store with a token", Config("http://influx.example", Secret(file=str(tmp_path / "token")))
    )
    assert section.secrets() == [Secret(file=str(tmp_path / "token"))]
    with pytest.raises(UnfitSecret):
        refuse_unfit(*section.secrets())
