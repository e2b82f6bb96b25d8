"""Edits of a site folder: comments and order stay, nothing wrong gets in, two at once lose neither."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from agent.documents import FileMistakes, Mistake, edit_document, read_document, write_document
from agent.language import speaking
from collector.site_edit import CannotEdit, SiteEditor

ENTRY = {
    "of": ["db-1"],
    "from": "2026-03-02T22:00:00+08:00",
    "to": "2026-03-03",
    "reason": "升级: 第 2 次 # 夜间",
    "author": "张三",
    "declared": "2026-03-01",
    "comment": None,
}
WRITTEN = """\
# 维护 / maintenance

# 第一次 / the first
- of: [db-1]   # 只停备库 / the standby alone
  from: "2026-02-02T22:00:00+08:00"
  to: 2026-02-03

  author: 李四
  reason: >-
    换
    盘
  declared: 2026-02-01
"""


def editor(folder: Path) -> SiteEditor:
    return SiteEditor(folder, lambda found: [])


def test_an_edit_keeps_comments_order_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "maintenance.yaml").write_text(WRITTEN, "utf-8")
    with editor(tmp_path) as editing:
        editing.append("maintenance.yaml", ENTRY)
    assert (tmp_path / "maintenance.yaml").read_text("utf-8") == (
        WRITTEN
        + """\
- of:
  - db-1
  from: '2026-03-02T22:00:00+08:00'
  to: 2026-03-03
  reason: '升级: 第 2 次 # 夜间'
  author: 张三
  declared: 2026-03-01
"""
    )


@pytest.mark.parametrize("before", [None, "", "# 只有注释 / comments alone\n", "[]\n"])
def test_a_file_without_entries_takes_the_first_one(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "maintenance.yaml"
    if before is not None:
        path.write_text(before, "utf-8")
    with editor(tmp_path) as editing:
        editing.append("maintenance.yaml", ENTRY)
        assert [window.reason for window in editing.read().maintenance] == ["升级: 第 2 次 # 夜间"]
    assert path.read_text("utf-8").startswith("#") == (before is not None and before.startswith("#"))


def test_what_would_be_wrong_changes_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "maintenance.yaml").write_text(WRITTEN, "utf-8")
    with editor(tmp_path) as editing, speaking("en"), pytest.raises(FileMistakes, match="must be after 'from'"):
        editing.append("maintenance.yaml", {**ENTRY, "to": "2026-03-01"})
    assert (tmp_path / "maintenance.yaml").read_text("utf-8") == WRITTEN
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "maintenance.yaml"]


def test_a_folder_with_mistakes_takes_no_edit(tmp_path: Path) -> None:
    (tmp_path / "calendars.yaml").write_text("busy: {}\n")
    with editor(tmp_path) as editing, pytest.raises(FileMistakes, match=r"calendars.yaml:1"):
        editing.append("maintenance.yaml", ENTRY)
    assert not (tmp_path / "maintenance.yaml").exists()


def test_what_the_rules_have_against_an_edit_keeps_it_out(tmp_path: Path) -> None:
    refusing = SiteEditor(tmp_path, lambda found: [Mistake("x", 1, f"{len(found.maintenance)} too many")])
    with refusing as editing, pytest.raises(FileMistakes, match="1 too many"):
        editing.append("maintenance.yaml", ENTRY)
    assert not (tmp_path / "maintenance.yaml").exists()


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with speaking("en"), pytest.raises(CannotEdit, match="there is no site folder"), editor(tmp_path / "nowhere"):
        pass


def test_a_document_is_copied_once_and_another_of_its_name_gets_its_own(tmp_path: Path) -> None:
    paper, folder = tmp_path / "report.pdf", tmp_path / "site"
    folder.mkdir()
    paper.write_bytes(b"one")
    with editor(folder) as editing, speaking("en"):
        first = editing.keep_document(paper)
        assert first == {"path": "documents/report.pdf", "sha256": hashlib.sha256(b"one").hexdigest()}
        assert editing.keep_document(paper) == first
        paper.write_bytes(b"two")
        second = editing.keep_document(paper)
        with pytest.raises(CannotEdit, match="cannot read the document"):
            editing.keep_document(tmp_path / "nowhere.pdf")
    assert second["path"] == f"documents/report-{second['sha256'][:8]}.pdf"
    assert sorted(path.read_bytes() for path in (folder / "documents").iterdir()) == [b"one", b"two"]


ADD = """
import sys
from pathlib import Path
from collector.site_edit import SiteEditor
entry = {"from": "2026-03-02", "to": "2026-03-03", "reason": "x", "author": "y", "declared": "2026-03-01"}
for number in range(5):
    with SiteEditor(Path(sys.argv[1]), lambda found: []) as editing:
        editing.append("maintenance.yaml", {"of": [f"{sys.argv[2]}-{number}"], **entry})
"""


def test_edits_at_once_lose_none(tmp_path: Path) -> None:
    editors = [subprocess.Popen([sys.executable, "-c", ADD, str(tmp_path), name]) for name in ("a", "b", "c")]
    assert [editor.wait(60) for editor in editors] == [0, 0, 0]
    with editor(tmp_path) as editing:
        assert len({window.ids for window in editing.read().maintenance}) == 15


def test_plain_values_are_written_as_yaml_that_reads_the_same(tmp_path: Path) -> None:
    value = {"title": "否: no", "list": [1, 2.5, True, None, "on", "1:30", "2026-01-01"], "empty": {}}
    (tmp_path / "x.yaml").write_text(write_document(value), "utf-8")
    assert read_document(tmp_path / "x.yaml").value == value
    assert edit_document("a: 1 # why\n", lambda found: found) == "a: 1 # why\n"
