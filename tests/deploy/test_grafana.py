"""Grafana's dashboards: what is committed is what the code makes, and every query of it gets rows from a real InfluxDB. No Grafana ran."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dashboards.files import made
from grafana import FOLDER, ROOT, Asked, Chosen, answer, asked, choices, dashboards, judge, offered
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from influxstore import DATABASE
from shown_hospital import DEAD, MAIN, TROUBLED, ShownHospital
from starlette.routing import Route

from agent.documents import read_document
from collector.ruleset import load_rules
from collector.score import Scorecard
from collector.web.app import create_app

KINDS = {"stat", "gauge", "timeseries", "table", "bargauge", "state-timeline", "text", "row"}
"""Panels that every Grafana has."""
SOURCE = {"type": "influxdb", "uid": "infravitals"}
CHINESE = re.compile("[\u4e00-\u9fff\uff00-\uffef\u3000-\u303f]")
LANGUAGES = ("zh", "en")
register_default_plugins()
PAGES = [(language, name) for language in LANGUAGES for name, _ in dashboards(language)]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShownHospital]:
    hospital = ShownHospital(tmp_path_factory.mktemp("shown"), load_rules().rules)
    with hospital.kept:
        asyncio.run(hospital.fill())
        yield hospital


def page_of(language: str, name: str) -> dict[str, Any]:
    return dict(dashboards(language))[name]


def test_what_is_committed_is_what_the_code_makes() -> None:
    texts = made()
    for name, text in texts.items():
        assert (FOLDER / name).read_text("utf-8") == text, f"{name}: make pages"
    committed = {path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("dashboards/**/*") if path.is_file()}
    assert committed == {name for name in texts if name.startswith("dashboards/")}


@pytest.mark.parametrize(("language", "name"), PAGES)
def test_every_query_of_a_dashboard_gets_rows(language: str, name: str, shown: ShownHospital) -> None:
    page, server = page_of(language, name), shown.kept.server
    chosen = choices(page, server, DATABASE, {"site": MAIN, "asset": "his-1"})
    wrong = []
    for one in asked(page, chosen, shown.seen_at):
        series = answer(server, DATABASE, one.query)
        wrong += [f"{one.panel}: {lack}: {one.query}" for lack in lacks(one, series)]
    assert not wrong, "\n".join(["", *wrong])


def lacks(one: Asked, series: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What a panel would miss in an answer: rows, a tag in the series' names, a column with any value."""
    if not series:
        yield "no rows"
        return
    tags = set(series[0].get("tags", {}))
    columns = {name: place for place, name in enumerate(series[0]["columns"])}
    filled = {
        name for name, place in columns.items() for found in series for row in found["values"] if row[place] is not None
    }
    filled |= {tag for found in series for tag, value in found.get("tags", {}).items() if value}
    if one.is_table:
        yield from (f"nothing in column {name}" for name in one.columns if name.replace("Time", "time") not in filled)
    elif filled - tags == {"time"}:
        yield "no value"
    yield from (f"no tag {name}" for name in re.findall(r"\[\[tag_(\w+)\]\]", one.alias) if name not in tags)
    names = {
        tuple(value for tag, value in sorted(found.get("tags", {}).items()) if f"tag_{tag}]]" in one.alias)
        for found in series
    }
    if not one.is_table and len(names) < len(series):
        yield "two series of one name"


def test_scores_that_are_drawn_are_those_of_the_scorecard(shown: ShownHospital) -> None:
    page, server = page_of("en", "readiness"), shown.kept.server
    with shown.kept.open() as store:
        *_, before, _, _, newest = (msgspec.json.decode(one.body, type=Scorecard) for one in store.scorecards(MAIN, 0))
    chosen = choices(page, server, DATABASE, {"site": MAIN})
    shows = {(one.panel, one.alias): one.query for one in asked(page, chosen, shown.seen_at)}
    drawn_values = [answer(server, DATABASE, shows["The whole index", name])[0]["values"][0][1] for name in STANDING]
    assert drawn_values == [newest.total.low, newest.total.high, newest.total.coverage]
    assert 0 < before.total.low < newest.total.low < newest.total.high
    [row] = [
        dict(zip(one["columns"], one["values"][0], strict=True))
        for one in answer(server, DATABASE, shows["Criteria that changed since yesterday", ""])
        if one["tags"]["node"] == "public-imaging-assessed"
    ]
    assert (row["low"], row["change"], row["status"]) == (100, 100, "scored")


def test_variables_offer_the_sites_the_zones_and_the_assets_of_a_zone(shown: ShownHospital) -> None:
    server = shown.kept.server
    site, zone, asset, _ = page_of("zh", "asset")["templating"]["list"]
    everywhere = {"site": Chosen(MAIN), "zone": Chosen(zone["allValue"], is_all=True)}
    assert set(offered(site, {}, server, DATABASE)) == EVERY
    assert offered(zone, everywhere, server, DATABASE) == ["core", "office"]
    assert offered(asset, everywhere, server, DATABASE) == ["his-1", "office-probe"]
    assert offered(asset, everywhere | {"zone": Chosen("office")}, server, DATABASE) == ["office-probe"]
    without_register = {"site": Chosen(TROUBLED), "zone": Chosen(zone["allValue"], is_all=True)}
    assert offered(asset, without_register, server, DATABASE) == ["campus-1"]
    probed = page_of("zh", "isolation")["templating"]["list"][1]
    assert set(offered(probed, everywhere, server, DATABASE)) == {"core", "office"}


STANDING = ("counts", "at best", "has data")


@pytest.mark.parametrize(("language", "name"), PAGES)
def test_over_an_empty_database_nothing_fails_and_panels_say_what_to_do(
    language: str, name: str, shown: ShownHospital
) -> None:
    page, server = page_of(language, name), shown.kept.server
    server.ask("CREATE DATABASE empty")
    chosen = {"site": Chosen("hospital"), "zone": Chosen(".*", is_all=True), "asset": Chosen("")}
    assert not [one for one in asked(page, chosen, shown.seen_at) if answer(server, "empty", one.query)]
    for variable in page["templating"]["list"]:
        if variable["type"] == "query":
            assert offered(variable, chosen, server, "empty") == []
    for panel in drawn(page):
        if panel["type"] != "text":
            said = panel["fieldConfig"]["defaults"]["noValue"]
            assert len(said) > 10 and (language == "zh") == bool(CHINESE.search(said)), panel["title"]


@pytest.mark.parametrize(("language", "name"), PAGES)
def test_dashboard_is_what_the_types_of_grafana_allow(language: str, name: str) -> None:
    page = page_of(language, name)
    again = json.loads(json.dumps(Dashboard.from_json(page), cls=JSONEncoder))
    assert again == page, "a key or a value that Grafana's own types do not have"


@pytest.mark.parametrize(("language", "name"), PAGES)
def test_panels_have_their_place_their_number_and_the_one_data_source(language: str, name: str) -> None:
    page = page_of(language, name)
    assert page["uid"] == f"infravitals-{name}-{language}" and len(page["uid"]) <= 40
    assert page["editable"] is False
    numbers = [panel["id"] for panel in page["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] in KINDS
    for panel in drawn(page):
        assert panel["title"] and panel["datasource"] == SOURCE
        assert all(target["datasource"] == SOURCE for target in panel.get("targets", ()))


@pytest.mark.parametrize("name", [name for _, name in PAGES[: len(PAGES) // 2]])
def test_both_languages_show_the_same_and_each_speaks_its_own(name: str) -> None:
    zh, en = (page_of(language, name) for language in LANGUAGES)
    units_of = re.findall(r'"unit": "([^"]+)"|"id": "unit", "value": "([^"]+)"', json.dumps(en))
    assert {one or other for one, other in units_of} <= {
        value for value in vars(units).values() if isinstance(value, str)
    }
    queries = [
        [target["query"] for panel in page["panels"] for target in panel.get("targets", ())] for page in (zh, en)
    ]
    assert queries[0] == queries[1]
    assert not CHINESE.search(json.dumps(en, ensure_ascii=False))
    wordless = [panel["title"] for panel in zh["panels"] if not CHINESE.search(panel["title"])]
    assert not wordless


def drawn(page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The panels that are no headings."""
    yield from (panel for panel in page["panels"] if panel["type"] != "row")


def test_links_lead_to_the_page_that_explains_and_to_dashboards_that_exist() -> None:
    uids = {page["uid"] for language in LANGUAGES for _, page in dashboards(language)}
    text = "".join(path.read_text("utf-8") for path in FOLDER.glob("dashboards/*/*.json"))
    assert set(re.findall(r'"/d/([a-z0-9-]+)', text)) <= uids
    explained = set(re.findall(r"\$\{page\}(/[a-z]*)", text))
    assert explained == {"/", "/node", "/criterion"}
    routes = {route.path.split("/{")[0] for route in create_app(lambda: None).routes if isinstance(route, Route)}
    assert explained <= routes


# -- alerts


def rules_of() -> list[Any]:
    [group] = as_yaml("provisioning/alerting/infravitals.yaml")["groups"]
    return list(group["rules"])


def as_yaml(name: str) -> Any:
    return read_document(FOLDER / name).value


EVERY = {MAIN, TROUBLED, DEAD}
FIRING: Mapping[str, tuple[set[str], set[str]]] = {
    "no-data": ({DEAD}, {MAIN, TROUBLED}),
    "agent-lost": ({DEAD}, {MAIN, TROUBLED}),
    "collector-lost": ({DEAD}, {MAIN, TROUBLED}),
    "points-set-aside": ({TROUBLED}, {MAIN}),
    "spool-waiting": ({TROUBLED}, {MAIN}),
    "score-fallen": ({TROUBLED}, EVERY),
    "attestation-ending": ({TROUBLED}, {MAIN}),
    "isolation-broken": ({TROUBLED}, {MAIN}),
    "line-down": ({TROUBLED}, {MAIN}),
    "line-slow": ({TROUBLED}, {MAIN}),
    "line-unsteady": ({TROUBLED}, {MAIN}),
    "line-lossy": ({TROUBLED}, {MAIN}),
}
"""Rule -> the sites where it fires, and where it has a series that does not."""


def test_every_alert_has_its_case() -> None:
    assert [rule["uid"] for rule in rules_of()] == [f"infravitals-{name}" for name in FIRING]


@pytest.mark.parametrize("rule", rules_of(), ids=lambda rule: rule["uid"])
def test_alert_fires_where_the_trouble_is_and_nowhere_else(rule: Mapping[str, Any], shown: ShownHospital) -> None:
    firing, silent = FIRING[rule["uid"].removeprefix("infravitals-")]
    verdict = judge(rule, shown.kept.server, DATABASE, shown.now)
    assert (verdict.sites(True), verdict.sites(False)) == (firing, silent)
    named = set(re.findall(r"\$labels\.(\w+)", "".join(rule["annotations"].values())))
    assert all(named <= set(labels) for labels, _ in verdict.series), "a word of the message that no series has"


def test_empty_database_is_no_data_and_raises_no_other_alarm(shown: ShownHospital) -> None:
    shown.kept.server.ask("CREATE DATABASE empty")
    alarms = [rule["uid"] for rule in rules_of() if judge(rule, shown.kept.server, "empty", shown.now).state != "OK"]
    assert alarms == ["infravitals-no-data"]


def test_alert_speaks_both_languages_and_is_known_by_its_uid_for_good() -> None:
    for rule in rules_of():
        assert len(rule["uid"]) <= 40 and "$" not in rule["title"]
        said = rule["annotations"]
        assert all(
            CHINESE.search(said[key]) and not CHINESE.search(said[f"{key}_en"]) for key in ("summary", "description")
        )
        for step in rule["data"]:
            assert step["datasourceUid"] == step["model"]["datasource"]["uid"]
            assert step["datasourceUid"] in ("infravitals", "__expr__")


# -- provisioning


def test_no_secret_stands_in_a_provisioning_file_and_examples_cannot_reach_anybody() -> None:
    for name in ("provisioning/datasources/infravitals.yaml", "examples/datasource-influxdb-2.yaml"):
        [source] = as_yaml(name)["datasources"]
        assert source["uid"] == "infravitals"
        assert all("$__file{" in value for value in source["secureJsonData"].values())
        assert source["url"].startswith("$") and source["jsonData"]["dbName"].startswith("$")
    [point] = as_yaml("examples/contact-points.yaml")["contactPoints"]
    for receiver in point["receivers"]:
        [address] = [value for key, value in receiver["settings"].items() if key in ("url", "addresses")]
        assert re.search(r"\.invalid(/|$)", address)
    [policy] = as_yaml("examples/notification-policies.yaml")["policies"]
    assert policy["receiver"] == point["name"]


def test_dashboards_are_looked_for_where_the_document_says_to_put_them() -> None:
    guide = (ROOT / "docs" / "grafana.md").read_text("utf-8")
    for provider in as_yaml("provisioning/dashboards/infravitals.yaml")["providers"]:
        path = Path(provider["options"]["path"])
        assert (FOLDER / "dashboards" / path.name).is_dir()
        assert str(path.parent.parent) in guide


def test_guide_lists_every_dashboard_and_every_alert() -> None:
    guide = (ROOT / "docs" / "grafana.md").read_text("utf-8")
    missing = [name for language, name in PAGES if f"`{name}`" not in guide]
    missing += [name for name in FIRING if f"`{name}`" not in guide]
    assert not missing


def test_commands_and_documents_that_are_named_exist() -> None:
    text = "".join(path.read_text("utf-8") for path in FOLDER.glob("**/*.*"))
    known = {
        program: subprocess.run(
            [Path(sys.executable).with_name(program), "--help"], capture_output=True, text=True
        ).stdout
        for program in ("infravitals", "infravitals-agent")
    }
    named = set(re.findall(r"\b(infravitals(?:-agent)?) ([a-z]+)\b", text))
    assert ("infravitals", "doctor") in named
    assert not [
        (program, command) for program, command in named if not re.search(rf"^ +{command}\b", known[program], re.M)
    ]
    assert all((ROOT / document).exists() for document in re.findall(r"docs/[a-z-]+\.md", text))
