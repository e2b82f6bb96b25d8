"""What the pages say, before any page is laid out."""

import dataclasses
from typing import Any

import msgspec

from agent.catalogue import Text
from agent.language import Language, speaking
from collector.evidence import CriterionResult, Provisional
from collector.rulebook import Scale
from collector.snapshot import Snapshot
from collector.web.agents_view import agents_view
from collector.web.evidence_view import criterion_view
from collector.web.figures import Bar, show_weight
from collector.web.times import ago, day
from collector.web.troubles import count_alive, list_troubles
from collector.web.view import frame_of


def test_the_three_parts_of_a_bar_add_up_to_a_hundred() -> None:
    with speaking("en"):
        assert Bar(60.0, 85.0, 0.5).parts == (
            ("proven", "proven", "60.0"),
            ("open", "not proven", "25.0"),
            ("lost", "lost", "15.0"),
        )


def test_a_weight_is_a_percentage_without_noise() -> None:
    assert [show_weight(weight) for weight in (0.15, 0.1 + 0.2, 1 / 3)] == ["15 %", "30 %", "33.3333 %"]


def test_how_long_ago_is_said_in_the_greatest_unit_that_fits() -> None:
    with speaking("zh"):
        assert [ago(0, after) for after in (59_000, 60_000, 7_300_000, 200_000_000)] == [
            "59 秒前",
            "1 分钟前",
            "2 小时前",
            "2 天前",
        ]


def test_many_silent_agents_are_counted_and_not_all_named(snapshot: Snapshot) -> None:
    silent = snapshot.agents[2]
    many = [dataclasses.replace(silent, agent=f"host-{number}", holes=()) for number in range(9)]
    with speaking("zh"):
        troubles = list_troubles(dataclasses.replace(snapshot, agents=many, set_aside={}))
    assert troubles == ["采集代理静默：host-0、host-1、host-2 等 9 个"]


def test_what_fails_is_named_with_what_it_looks_at(snapshot: Snapshot) -> None:
    agent = snapshot.agents[0]
    failing = dataclasses.replace(agent.sources[0], asset="vm", source="snmp_device", is_fresh=True, is_success=False)
    sources = [dataclasses.replace(failing, target=target) for target in ("core-switch", "edge-switch", "vm", "")]
    failed = dataclasses.replace(agent, sources=sources)
    with speaking("zh"):
        troubles = list_troubles(dataclasses.replace(snapshot, agents=[failed], set_aside={}))
    assert troubles == ["采集失败：vm snmp_device core-switch、vm snmp_device edge-switch、vm snmp_device 等 4 个"]


def test_a_hospital_without_trouble_has_none_to_tell(snapshot: Snapshot) -> None:
    well = dataclasses.replace(snapshot, agents=[snapshot.agents[0]], set_aside={})
    assert snapshot.agents[0].agent == "gw-core"
    assert list_troubles(well) == []


def test_mistakes_in_the_site_folder_are_told_with_the_command_that_names_them(snapshot: Snapshot) -> None:
    broken = dataclasses.replace(
        snapshot, agents=[snapshot.agents[0]], set_aside={}, folder_trouble="register.yaml:2: unknown key"
    )
    with speaking("en"):
        (told,) = list_troubles(broken)
    assert told == (
        "the site folder has mistakes; what it said before holds on"
        " (/opt/infravitals/bin/infravitals register check --data-dir '/srv/a hospital')"
    )


def test_every_page_names_the_hospital_as_its_folder_does(snapshot: Snapshot) -> None:
    named = dataclasses.replace(
        snapshot, folder=dataclasses.replace(snapshot.folder, title=Text("人民医院", "People's Hospital"))
    )
    assert frame_of(snapshot, "/", snapshot.taken_at).title == ""
    titles: tuple[tuple[Language, str], ...] = (("zh", "人民医院"), ("en", "People's Hospital"))
    for language, title in titles:
        with speaking(language):
            frame = frame_of(named, "/", snapshot.taken_at)
        assert (frame.title, frame.site) == (title, "renmin")


def test_only_the_first_of_many_holes_are_listed(snapshot: Snapshot) -> None:
    holes = tuple(("boot", 10 * number, 10 * number + number % 2) for number in range(7))
    agent = dataclasses.replace(snapshot.agents[0], holes=holes)
    with speaking("en"):
        view: Any = agents_view(dataclasses.replace(snapshot, agents=[agent]))
    facts = dict(view.values["agents"][0].facts)
    assert facts["missing batches"] == "10 (#0, 10–11, 20, 30–31, 40, …)"


def test_a_silent_agent_may_be_losing_points_and_only_a_silent_one(snapshot: Snapshot) -> None:
    with speaking("en"):
        view: Any = agents_view(snapshot)
    said = {row.name: "its disk may be full" in row.silence for row in view.values["agents"]}
    assert said == {"pacs-02": True, "his-db-01": False, "gw-core": False}


def test_an_agent_whose_clock_is_off_is_named_with_how_far(snapshot: Snapshot) -> None:
    core = snapshot.agents[0]
    right = dataclasses.replace(core, agent="aa-1")
    off = dataclasses.replace(snapshot, agents=[right, core], set_aside={}, clocks_off={"gw-core": -259_200_000})
    with speaking("zh"):
        assert list_troubles(off) == ["时钟不准：gw-core 快 259200 秒（72.0 小时）"]
        view: Any = agents_view(off)
    rows = [(row.name, row.skew) for row in view.values["agents"]]
    assert rows == [("gw-core", "时钟快 259200 秒（72.0 小时）"), ("aa-1", "")]


def test_a_revoked_agent_is_neither_silent_nor_counted_and_stands_last(snapshot: Snapshot) -> None:
    core, silent = snapshot.agents[0], snapshot.agents[2]
    at = snapshot.taken_at - 86_400_000
    gone = dataclasses.replace(silent, agent="aa-1", holes=(), revoked_at=at)
    shown = dataclasses.replace(snapshot, agents=[gone, core], set_aside={})
    with speaking("en"):
        assert list_troubles(shown) == []
        assert count_alive(shown) == "1 of 1 agents alive, 1 revoked"
        view: Any = agents_view(shown)
        on = day(at, snapshot.zone)
        rows = [(row.name, row.state, row.word, row.silence) for row in view.values["agents"]]
        assert rows == [("gw-core", "good", "alive", ""), ("aa-1", "none", f"revoked on {on}", "")]
        sending = dataclasses.replace(core, revoked_at=at, last_received=snapshot.taken_at)
        shown = dataclasses.replace(snapshot, agents=[sending], set_aside={})
        assert list_troubles(shown) == ["revoked and sending all the same: gw-core"]
        view = agents_view(shown)
        assert view.values["agents"][0].word == f"revoked on {on}, sending all the same"


def with_result(snapshot: Snapshot, name: str, **changes: Any) -> Snapshot:
    """The snapshot with something changed in one criterion's result."""

    def changed(result: CriterionResult) -> CriterionResult:
        return msgspec.structs.replace(result, **changes) if result.id == name else result

    nodes = [
        msgspec.structs.replace(node, criteria=[changed(result) for result in node.criteria])
        for node in snapshot.scorecard.nodes
    ]
    return dataclasses.replace(snapshot, scorecard=msgspec.structs.replace(snapshot.scorecard, nodes=nodes))


def rungs(snapshot: Snapshot, name: str) -> list[tuple[str, str, str]]:
    """(at, points, mark) of a criterion's scale as its page shows it."""
    with speaking("en"):
        view: Any = criterion_view(snapshot, name)
    return [(rung.at, rung.points, rung.mark) for rung in view.values["rungs"]]


def test_the_scale_marks_both_ends_of_an_interval(snapshot: Snapshot) -> None:
    shown = with_result(snapshot, "telemetry-completeness", low=0.0, high=85.0)
    assert rungs(shown, "telemetry-completeness") == [
        ("≥ 99 %", "100", ""),
        ("≥ 97 %", "85", "at best"),
        ("≥ 90 %", "60", ""),
        ("≥ 80 %", "30", ""),
        ("none of these", "0", "at worst (counts)"),
    ]


def test_the_scale_marks_nothing_for_what_is_not_known(snapshot: Snapshot) -> None:
    assert {mark for _, _, mark in rungs(snapshot, "achieved-rto")} == {""}


def test_a_provisional_value_says_what_it_rests_on(snapshot: Snapshot) -> None:
    words = Text("只取自尚未结束的时间桶", "the open bucket alone")
    shown = with_result(snapshot, "telemetry-completeness", provisional=Provisional(1.0, 100.0, words))
    with speaking("en"):
        view: Any = criterion_view(shown, "telemetry-completeness")
    assert view.values["row"].rests_on == "the open bucket alone"


def test_a_scale_that_is_a_line_shows_its_turns(snapshot: Snapshot) -> None:
    rules = snapshot.rules
    straight: Scale = msgspec.structs.replace(
        rules.book.scales["telemetry-completeness"], rungs=(), line=((0.5, 0.0), (1.0, 100.0))
    )
    book = dataclasses.replace(rules.book, scales={**rules.book.scales, "telemetry-completeness": straight})
    shown = dataclasses.replace(snapshot, rules=dataclasses.replace(rules, book=book))
    unknown = with_result(shown, "telemetry-completeness", status="no_data", provisional=None)
    assert rungs(unknown, "telemetry-completeness") == [("50 %", "0", ""), ("100 %", "100", "")]
    marked = with_result(shown, "telemetry-completeness", provisional=None, value=0.75, low=50.0, high=50.0)
    assert rungs(marked, "telemetry-completeness") == [
        ("50 %", "0", ""),
        ("75 %", "50", "now"),
        ("100 %", "100", ""),
    ]


def test_a_criterion_that_the_index_does_not_count_has_no_page(snapshot: Snapshot) -> None:
    assert criterion_view(snapshot, "no-such-criterion") is None
