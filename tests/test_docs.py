"""docs/rules.md and docs/site-folder.md against the structs that read the files: every key is there, the examples do what they say."""

import re
import shutil
import typing
from pathlib import Path

import pytest

from agent import catalogue
from agent.language import speaking
from collector import cases, rulebook, rules_folder, site_written
from collector.cases import run_cases
from collector.combine import ANY_INPUTS, COMBINATIONS, Combination
from collector.rulebook import Better
from collector.ruleset import Loaded, load_rules, memory_store
from collector.site_check import asked_attributes, check_against_rules
from collector.site_files import read_site_folder
from collector.site_folder import ATTRIBUTES, SECTION_OF_TAG
from collector.stores import influxdb
from collector.stores._influx_records import OWN

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "rules.md"
SITE_PAGE = ROOT / "docs" / "site-folder.md"
INFLUX_PAGE = ROOT / "docs" / "influxdb.md"

STRUCTS = (
    rulebook.Criterion,
    rulebook.Asking,
    rulebook.TakeBoth,
    rulebook.OutOf,
    rulebook.Step,
    rulebook.Needs,
    rulebook.Combining,
    rulebook.Scale,
    rulebook.Rung,
    rulebook.Basis,
    rulebook.Publication,
    rulebook.Index,
    rulebook.Node,
    rulebook.Counted,
    rulebook.Cap,
    cases.CaseFile,
    cases.Case,
    cases.Series,
    cases.CaseSite,
    cases.Expected,
)


SITE_STRUCTS = (
    site_written.RegisterFile,
    site_written.Registered,
    site_written.Retired,
    site_written.Asset,
    site_written.Service,
    site_written.Link,
    site_written.Attested,
    site_written.Paper,
    site_written.Exempted,
    site_written.Window,
    site_written.Week,
    site_written.SiteFile,
)


def section(name: str, page: Path = PAGE) -> str:
    """What stands under the heading of a struct."""
    _, found, rest = page.read_text("utf-8").partition(f"\n### `{name}`\n")
    assert found, f"add to {page}: ### `{name}`"
    return re.split(r"\n##+ ", rest)[0]


def examples(kind: str) -> list[str]:
    """The examples of the page whose first line says that they are of this kind, in order."""
    return re.findall(rf"```yaml\n# {kind}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def words_of(struct: type, key: str) -> tuple[str, ...]:
    """The words that a key may hold, those of a Literal that is there or not among them."""
    hint = typing.get_type_hints(struct)[key]
    found = [word for part in (hint, *typing.get_args(hint)) for word in typing.get_args(part)]
    return tuple(word for word in found if isinstance(word, str))


def test_every_struct_of_the_language_is_looked_at() -> None:
    mine = {name for name, found in vars(rulebook).items() if isinstance(found, type) and found.__module__ == rulebook.__name__
            and hasattr(found, "__struct_fields__") and not name.startswith("_")}  # fmt: skip
    assert mine <= {struct.__name__ for struct in STRUCTS}


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_key_has_its_row_and_every_row_its_key(struct: type[rulebook.Criterion]) -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", section(struct.__name__), re.MULTILINE)
    keys = struct.__struct_encode_fields__
    missing = [f"add to `{struct.__name__}` in docs/rules.md: | `{key}` | … | … |" for key in keys if key not in rows]
    assert not missing, "\n" + "\n".join(missing)
    assert not set(rows) - set(keys), f"docs/rules.md: `{struct.__name__}` has no such keys"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Criterion", ("measured", "attested")),
        ("Asking", ATTRIBUTES),
        ("Asking", words_of(rulebook.Asking, "of")),
        ("Asking", words_of(rulebook.Asking, "silence")),
        ("Asking", words_of(rulebook.Asking, "excused_by")),
        ("Scale", typing.get_args(typing.get_type_hints(rulebook.Scale)["unit"])),
        ("Scale", typing.get_args(rulebook.Better)),
        ("Basis", typing.get_args(rulebook.Confidence)),
    ],
)
def test_every_word_that_a_key_may_hold_is_there(name: str, words: tuple[str, ...]) -> None:
    assert [word for word in words if f"`{word}`" not in section(name)] == []


def test_every_tag_that_of_may_name_has_a_section_of_the_register() -> None:
    assert set(words_of(rulebook.Asking, "of")) == {"asset", "service", "system", "line", "segment"}
    assert set(words_of(rulebook.Asking, "of")) <= set(SECTION_OF_TAG)


def test_the_words_of_take_are_there_and_are_understood() -> None:
    _, _, rest = PAGE.read_text("utf-8").partition("The words of `take`\n")
    table = rest.strip().split("\n\n")[0]
    words = [word for row in table.split("\n")[2:] for word in re.findall("`([^`]+)`", row.split("|")[1])]
    known = {"mean", "min", "max", "last", "p0", "p99", "share >= 0.5", "age >= 1", "worst", "best", "sum", "count"}
    assert set(words) - {"subject", "bucket"} == known
    assert [rulebook.parse_take(word).by for word in words if word not in ("worst", "best")]


ARROWS: dict[Better | None, str] = {"higher": "↑", "lower": "↓", None: "="}


def row_of(name: str, combination: Combination) -> str:
    """How a combination stands in the page's table."""
    inputs = " ".join(f"`{key}` {ARROWS[better]}" for key, better in combination.inputs.items())
    if name in ANY_INPUTS:
        inputs = "任意名称 any names"
    result = ("每个 each" if combination.each else "全部 all") + (
        f" {ARROWS[combination.better]}" if combination.better else ""
    )
    return f"| `{name}` | {inputs} | {result} | {combination.title.zh} | {combination.title.en} |"


def test_every_function_stands_in_the_table_as_it_is_declared() -> None:
    _, _, rest = PAGE.read_text("utf-8").partition("### 函数 The functions\n")
    table = re.findall(r"^\| `.*$", rest.split("```")[0], re.MULTILINE)
    due = [row_of(name, combination) for name, combination in COMBINATIONS.items()]
    assert set(ANY_INPUTS) <= set(COMBINATIONS)
    assert table == due, "put into docs/rules.md:\n" + "\n".join(row for row in due if row not in table)


def load_page(folder: Path) -> Loaded:
    """Every example of the page as the rules of one folder, beside the shipped scales; complaints fly."""
    rules = folder / "rules"
    (rules / "indexes").mkdir(parents=True)
    (rules / "servers").mkdir()
    shutil.copytree(ROOT / "rules" / "scales", rules / "scales")
    shutil.copy(ROOT / "rules" / "sources.yaml", rules)
    [scale], (measured, attested) = examples("scale"), examples("criterion")
    (rules / "scales" / "memory-headroom.yaml").write_text(scale, "utf-8")
    (rules / "servers" / "memory-headroom.yaml").write_text(measured, "utf-8")
    (rules / "servers" / "ups-contract.yaml").write_text(attested, "utf-8")
    head = measured[: measured.index("question:")]
    for kind, key in (("question", "question"), ("combine", "combine")):
        for number, text in enumerate(examples(kind)):
            body = "".join(f"  {line}\n" for line in text.splitlines())
            (rules / "servers" / f"{kind}-{number}.yaml").write_text(f"{head}{key}:\n{body}", "utf-8")
    [index] = examples("index")
    caps = "".join(f"  -\n{''.join(f'    {line}{chr(10)}' for line in text.splitlines())}" for text in examples("cap"))
    (rules / "indexes" / "dei_2021.yaml").write_text(f"{index}caps:\n{caps}", "utf-8")
    return load_rules(rules)


def test_every_example_is_a_rule_that_may_be_asked(tmp_path: Path) -> None:
    book = load_page(tmp_path).rules.book
    assert [len(examples(kind)) for kind in ("question", "combine", "cap")] == [6, 1, 2]
    asked = [criterion.question for criterion in book.criteria.values() if criterion.question]
    for key in ("out_of", "during", "together", "watched_by", "silence", "of", "excused_by", "where"):
        assert [one for one in asked if getattr(one, key)], f"no example shows {key}"
    assert [criterion for criterion in book.criteria.values() if criterion.combine]
    assert [cap for cap in book.index.caps if cap.criterion] and [cap for cap in book.index.caps if cap.question]
    assert [criterion.not_applicable for criterion in book.criteria.values() if criterion.kind == "attested"] != [None]


def test_the_examples_pass_their_own_cases(tmp_path: Path) -> None:
    loaded = load_page(tmp_path)
    folder = tmp_path / "cases" / "servers"
    folder.mkdir(parents=True)
    names = ("memory-headroom", "ups-contract")
    for name, text in zip(names, examples("cases"), strict=True):
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    with speaking("en"), memory_store(loaded.rules.catalogue) as store:
        outcomes = list(run_cases(tmp_path / "cases", loaded.rules, store, names))
    assert [outcome.mistakes for outcome in outcomes] == [()] * 8
    assert [outcome.case for outcome in outcomes] == [
        "good",
        "bad",
        "no_data",
        "sensor_dies",
        "in_force",
        "expired",
        "nobody_attested",
        "does_not_apply",
    ]


def test_the_zones_that_the_page_names_are_those_of_the_shipped_cap() -> None:
    [cap] = [cap for cap in rules_folder.load()[0].index.caps if cap.id == "clinical-zone-reached"]
    _, _, rest = PAGE.read_text("utf-8").partition("### 区域的 id Ids of zones\n")
    named = set(re.findall(r"^\| `([^`]+)` \|", rest.split("\n## ")[0], re.MULTILINE))
    for asking in cap.questions().values():
        assert {zone for zones in asking.where.values() for zone in zones} == named


@pytest.mark.parametrize("struct", SITE_STRUCTS, ids=lambda struct: struct.__name__)
def test_every_key_of_the_site_folder_has_its_row(struct: type[site_written.Registered]) -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", section(struct.__name__, SITE_PAGE), re.MULTILINE)
    keys = set(struct.__struct_encode_fields__)
    if struct is not site_written.Registered and issubclass(struct, site_written.Registered):
        keys -= set(site_written.Registered.__struct_encode_fields__)  # they stand in its own table
    missing = [f"add to `{struct.__name__}` in {SITE_PAGE}: | `{key}` | … | … |" for key in keys - set(rows)]
    assert not missing, "\n" + "\n".join(missing)
    assert not set(rows) - keys, f"{SITE_PAGE}: `{struct.__name__}` has no such keys"


def test_the_examples_of_the_site_folder_are_one_folder_without_mistakes(tmp_path: Path) -> None:
    found = re.findall(r"```yaml\n# ([a-z.]+)\n(.*?)```", SITE_PAGE.read_text("utf-8"), re.DOTALL)
    assert {name for name, _ in found} == set(site_written.FILES)
    for name, text in found:
        (tmp_path / name).write_text(text, "utf-8")
    folder, warnings = read_site_folder(tmp_path)
    assert (folder.has_register, len(folder.attestations), warnings) == (True, 1, [])
    book, _ = rules_folder.load()
    assert check_against_rules(folder, book) == []


def test_the_attribute_values_that_the_shipped_rules_ask_stand_in_the_page() -> None:
    asked = asked_attributes(rules_folder.load()[0], catalogue.load())
    rows = [
        f"| `{name}` | {' '.join(f'`{value}`' for value in sorted(values))} |"
        for name, values in asked.items()
        if values
    ]
    text = SITE_PAGE.read_text("utf-8")
    assert not [row for row in rows if row not in text], f"put into {SITE_PAGE}:\n" + "\n".join(rows)


def test_influx_page_names_every_key_and_every_measurement_of_our_own() -> None:
    page = INFLUX_PAGE.read_text("utf-8")
    missing = [name for name in (*influxdb.Config.__struct_fields__, *OWN) if f"`{name}`" not in page]
    assert not missing, f"add to docs/influxdb.md: {missing}"
