"""The plan of a drill: what it must say, who may start it and when; and records that are counted again."""

import hashlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from agent.continuity.outages import Rule
from agent.continuity.tokens import Token
from agent.documents import FileMistakes, build, parse_document
from agent.drills.plan import Plan, check_start, describe
from agent.drills.records import Record, TokenLog, find_doubts, is_in_drill, read_records, replay
from agent.errors import SourceError, WrongCall

PLAN = """
drill: his-2026-q4
probe: his-db
people: [zhang-san, li-si]
window: {from: "2026-11-26T22:00:00+08:00", until: "2026-11-26T23:00:00+08:00"}
reason: 季度演练
hook:
  switch: [[systemctl, stop, postgresql]]
  back: [[systemctl, start, postgresql]]
"""
INSIDE = datetime(2026, 11, 26, 14, 30, tzinfo=UTC)


def plan(text: str = PLAN) -> Plan:
    return build(parse_document(text, "plan.yaml"), Plan)


def test_plan_prints_every_action_and_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFRAVITALS_LANG", "en")
    text = "\n".join(describe(plan()))
    assert '["systemctl","stop","postgresql"]' in text and '["systemctl","start","postgresql"]' in text
    assert f"code {plan().digest[:12]}" in text


def test_two_of_its_people_start_it_with_the_code_that_was_printed_within_the_window() -> None:
    code = plan().digest[:12]
    check_start(plan(), ["zhang-san", "li-si"], code, INSIDE)
    for by in ([], ["zhang-san"], ["zhang-san", "zhang-san"], ["zhang-san", "wang-wu"]):
        with pytest.raises(WrongCall, match="--by"):
            check_start(plan(), by, code, INSIDE)
    for wrong in ("", code[:7], "0" * 12):
        with pytest.raises(WrongCall, match="--code"):
            check_start(plan(), ["zhang-san", "li-si"], wrong, INSIDE)
    for hour, now in ((13, "2026-11-26T21:00:00"), (15, "2026-11-26T23:00:00")):
        with pytest.raises(WrongCall, match=rf"{now}\+08:00.*2026-11-26T22:00"):
            check_start(plan(), ["zhang-san", "li-si"], code, INSIDE.replace(hour=hour, minute=0))


def test_mistake_of_a_plan_says_in_one_language_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = PLAN.replace("[zhang-san, li-si]", "[zhang-san]").replace('23:00:00+08:00"', '23:00:00"')
    with pytest.raises(FileMistakes) as caught:
        plan(wrong)
    assert "plan.yaml:4: 'people'：应为 至少两个人，如 [zhang-san, li-si]" in str(caught.value)
    assert "plan.yaml:5: 'until'：应为 带时区的时刻，如 2026-11-26T22:00:00+08:00" in str(caught.value)
    monkeypatch.setenv("INFRAVITALS_LANG", "en")
    with pytest.raises(FileMistakes, match="expected at least two, such as"):
        plan(wrong)


def test_what_root_writes_of_a_drill_belongs_to_the_agent_s_user(tmp_path: Path) -> None:
    """Else the agent cannot note what it has told, and tells it again for ever."""
    assert os.geteuid() == 0, "this test needs root"
    os.chown(tmp_path, 65534, 65534)
    log = TokenLog(tmp_path / "drills", "one", "his", 0.0)
    assert {path.stat().st_uid for path in (tmp_path / "drills", *(tmp_path / "drills").iterdir())} == {65534}
    log.discard()


def test_page_s_commands_fit_its_plan_and_its_agent() -> None:
    text = (Path(__file__).parents[3] / "docs/failover.md").read_text("utf-8")
    found = re.findall(r"```yaml\n# (drill|agent\.yaml)\n(.*?)```", text, re.DOTALL)
    blocks = dict(reversed(found))  # the first of each name: other sources have files of their own further down
    shown = plan(blocks["drill"])
    probes = re.findall(r"^      ([a-z-]+): \{service", blocks["agent.yaml"], re.MULTILINE)
    assert shown.probe in probes
    assert set(re.findall(r"drill watch ([a-z0-9-]+) ", text)) <= set(probes)
    assert re.findall(r"drill show ([a-z0-9-]+) ", text)[-1] == shown.drill
    assert set(re.findall(r"--by ([a-z-]+)", text)) <= set(shown.people)


def test_changed_action_changes_the_code_and_layout_does_not() -> None:
    assert plan(PLAN.replace("stop", "restart")).digest != plan().digest
    assert plan("# a comment\n" + PLAN).digest == plan().digest


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("[zhang-san, li-si]", "[zhang-san, zhang-san]", "people"),
        ('until: "2026-11-26T23:00:00+08:00"', 'until: "2026-11-26T21:00:00+08:00"', "until"),
        ("+08:00", "", "from"),
        ("[[systemctl, stop, postgresql]]", "[[]]", "switch"),
        ("probe: his-db", "prob: his-db", "prob"),
    ],
)
def test_plan_that_is_wrong_is_refused_with_its_line(old: str, new: str, word: str) -> None:
    with pytest.raises(FileMistakes, match=word) as caught:
        plan(PLAN.replace(old, new))
    assert "plan.yaml:" in str(caught.value)


TOKENS = [Token(n, float(n), n + (0.01 if n not in (4, 5) else 0.9), n not in (4, 5), "a") for n in range(10)]


def write(folder: Path) -> Record:
    log = TokenLog(folder, "d-1", "his", 0.0)
    for token in TOKENS:
        log.add(token)
    digest = log.close()
    rule = Rule(1, 3)
    outages = replay(TOKENS, rule)
    record = Record(
        drill="d-1", service="his", probe="his-db", began_at=0.0, ended_at=10.0, people=("a", "b"), plan_digest="",
        token_log_digest=digest, rule=rule, outages=outages, sent=10, acknowledged=8, rto_seconds=2.01, rpo_seconds=0.0,
        lost=(), is_passed=False, is_aborted=False, is_automatic=True,
    )  # fmt: skip
    log.finish(record)
    return record


def test_record_is_counted_again_from_its_log_and_every_change_is_seen(tmp_path: Path) -> None:
    record = write(tmp_path)
    assert read_records(tmp_path) == [record]
    assert record.outages[0].duration_seconds == pytest.approx(2.01)
    assert find_doubts(tmp_path, record) == []
    assert find_doubts(tmp_path, msgspec.structs.replace(record, outages=()))
    assert find_doubts(tmp_path, msgspec.structs.replace(record, acknowledged=10))
    file = tmp_path / "d-1.tokens.jsonl"
    text = file.read_bytes()
    file.write_bytes(text.replace(b'"is_good":false', b'"is_good":true '))
    assert find_doubts(tmp_path, record)
    assert hashlib.sha256(text).hexdigest() == record.token_log_digest
    file.unlink()
    assert find_doubts(tmp_path, record)


def test_drill_covers_its_own_time_and_service_alone(tmp_path: Path) -> None:
    write(tmp_path)
    assert is_in_drill(tmp_path, "his", 5.0)
    assert not is_in_drill(tmp_path, "lis", 5.0)
    assert not is_in_drill(tmp_path, "his", 11.0)
    log = TokenLog(tmp_path, "d-2", "his", 20.0)
    assert is_in_drill(tmp_path, "his", 21.0)
    assert not is_in_drill(tmp_path, "lis", 21.0)
    log.give_up()
    assert not is_in_drill(tmp_path, "his", 21.0)


def test_drill_that_was_killed_is_over_soon(tmp_path: Path) -> None:
    log = TokenLog(tmp_path, "d-3", "his", 20.0)
    os.utime(tmp_path / "d-3.tokens.jsonl", (30.0, 30.0))
    assert is_in_drill(tmp_path, "his", 80.0)
    assert not is_in_drill(tmp_path, "his", 100.0), "nothing was written for more than a minute before"
    log.give_up()


def test_id_that_was_used_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(SourceError, match="d-1"):
        TokenLog(tmp_path, "d-1", "his", 30.0)
    assert not is_in_drill(tmp_path, "his", 10_000.0), "the drill that was refused is not on"
