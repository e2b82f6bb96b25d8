"""docs/rules.md and docs/site-folder.md against the structs that read the files: every key is there, the examples do what they say."""

import re
import shutil
import typing
from pathlib import Path

import pytest

from agent.language import speaking
from collector import cases, rulebook, site_written
from collector.cases import run_cases
from collector.ruleset import load_rules, memory_store
from collector.site_files import read_site_folder

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "rules.md"
SITE_PAGE = ROOT / "docs" / "site-folder.md"

STRUCTS = (
    rulebook.Criterion,
    rulebook.Asking,
    rulebook.TakeBoth,
    rulebook.Step,
    rulebook.Needs,
    rulebook.Scale,
    rulebook.Rung,
    rulebook.Basis,
    rulebook.Publication,
    rulebook.Index,
    rulebook.Node,
    rulebook.Counted,
    cases.CaseFile,
    cases.Case,
    cases.Series,
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


def examples() -> dict[str, str]:
    """The examples of the page by what their first line says they are."""
    found = re.findall(r"```yaml\n# (\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return dict(found)


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
        ("Asking", rulebook.ATTRIBUTES),
        ("Scale", typing.get_args(typing.get_type_hints(rulebook.Scale)["unit"])),
        ("Scale", typing.get_args(rulebook.Better)),
        ("Basis", typing.get_args(rulebook.Confidence)),
    ],
)
def test_every_word_that_a_key_may_hold_is_there(name: str, words: tuple[str, ...]) -> None:
    assert [word for word in words if f"`{word}`" not in section(name)] == []


def test_the_words_of_take_are_there_and_are_understood() -> None:
    _, _, rest = PAGE.read_text("utf-8").partition("The words of `take`\n")
    table = rest.strip().split("\n\n")[0]
    words = [word for row in table.split("\n")[2:] for word in re.findall("`([^`]+)`", row.split("|")[1])]
    assert set(words) == {"mean", "min", "max", "last", "p0", "p99", "share >= 0.5", "worst", "sum", "count"}
    assert [rulebook.parse_take(word).by for word in words if word != "worst"]


def test_the_full_example_passes_its_own_cases(tmp_path: Path) -> None:
    found = examples()
    places = {
        "criterion": "rules/servers/memory-headroom.yaml",
        "scale": "rules/scales/memory-headroom.yaml",
        "index": "rules/indexes/dei_2021.yaml",
        "cases": "cases/servers/memory-headroom.yaml",
    }
    for kind, place in places.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(found[kind], "utf-8")
    shutil.copy(ROOT / "rules" / "sources.yaml", tmp_path / "rules")
    loaded = load_rules(tmp_path / "rules")
    with speaking("en"), memory_store(loaded.rules.catalogue) as store:
        outcomes = list(run_cases(tmp_path / "cases", loaded.rules, store))
    assert [outcome.mistakes for outcome in outcomes] == [(), (), (), ()]
    assert [outcome.case for outcome in outcomes] == ["good", "bad", "no_data", "sensor_dies"]


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
    book, _ = rulebook.load()
    assert {one.criterion for one in (*folder.attestations, *folder.exemptions)} <= set(book.criteria)
