"""The alert rules under Prometheus' own tool: valid, each shown to fire and to be silent, in both languages."""

import subprocess
from pathlib import Path

import pytest
from servers import program

from agent.documents import read_document

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "infravitals.rules.yaml"
CASES = Path(__file__).parent / "infravitals.rules.test.yaml"


def alerts() -> list[dict[str, object]]:
    document: dict[str, list[dict[str, list[dict[str, object]]]]] = read_document(RULES).value
    return document["groups"][0]["rules"]


@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", RULES),
        ("check", "config", ROOT / "deploy" / "prometheus" / "prometheus.yaml"),
        ("test", "rules", CASES),
    ],
)
def test_promtool_accepts_it(words: tuple[str | Path, ...]) -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_shown_to_fire_and_to_be_silent() -> None:
    cases: dict[str, list[dict[str, list[dict[str, object]]]]] = read_document(CASES).value
    shown = [(one["alertname"], bool(one["exp_alerts"])) for case in cases["tests"] for one in case["alert_rule_test"]]
    missing = {(rule["alert"], fires) for rule in alerts() for fires in (True, False)} - set(shown)
    assert not missing


def test_every_alert_says_in_both_languages_what_is_wrong_and_what_to_do() -> None:
    for rule in alerts():
        annotations = rule["annotations"]
        assert isinstance(annotations, dict)
        assert set(annotations) == {"summary", "summary_en", "description", "description_en"}, rule["alert"]
        assert any("\u4e00" <= letter <= "\u9fff" for letter in annotations["summary"])
        assert annotations["summary_en"].isascii() and annotations["description_en"].isascii()
