"""A folder of catalogue files that is wrong: all mistakes at once, each with its file and line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.catalogue import load
from agent.documents import FileMistakes
from agent.language import choose

SOUND = """\
host_cpu:
  zh: 处理器
  en: Processors
  interval_seconds: 15
  staleness_seconds: 75
  retention_days: 40
  tags:
    core: {zh: 核, en: Core}
  fields:
    busy_ratio: {kind: gauge, range: [0, 1], resolution: 2^-20, zh: 忙碌占比, en: Share busy}
"""


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    choose("en")
    yield
    choose(None)


def mistakes_of(folder: Path, **files: str) -> list[str]:
    """What `load` says of these files, without the folder's own path."""
    for stem, text in files.items():
        (folder / f"{stem}.yaml").write_text(text, "utf-8")
    with pytest.raises(FileMistakes) as caught:
        load(folder)
    return [str(mistake).removeprefix(f"{folder}/") for mistake in caught.value.mistakes]


def test_sound_file_is_loaded_as_its_family(tmp_path: Path) -> None:
    (tmp_path / "servers.yaml").write_text(SOUND, "utf-8")
    catalogue = load(tmp_path)
    assert catalogue.families == {"servers": ("host_cpu",)}
    assert catalogue.measurements["host_cpu"].fields["busy_ratio"].step == 2.0**-20


def test_measurement_in_two_files_is_refused(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path, servers=SOUND, network="# again\n" + SOUND) == [
        "servers.yaml:1: 'host_cpu' is declared in another file too"
    ]


def test_measurement_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path, servers=SOUND + SOUND) == [
        "servers.yaml:11: key 'host_cpu' stands twice, first on line 1"
    ]


@pytest.mark.parametrize("lacking", ["range: [0, 1], ", "resolution: 2^-20, "])
def test_number_without_range_or_resolution_is_refused(tmp_path: Path, lacking: str) -> None:
    assert mistakes_of(tmp_path, servers=SOUND.replace(lacking, "")) == [
        "servers.yaml:10: number 'busy_ratio' lacks range or resolution"
    ]


@pytest.mark.parametrize("tag", ["site", "agent", "asset", "busy_ratio"])
def test_reserved_tag_is_refused(tmp_path: Path, tag: str) -> None:
    assert mistakes_of(tmp_path, servers=SOUND.replace("core:", f"{tag}:")) == [
        f"servers.yaml:8: tag '{tag}' is reserved or a field's name"
    ]


def test_unknown_key_is_refused_with_the_near_one(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path, servers=SOUND.replace("resolution:", "resolutoin:")) == [
        "servers.yaml:10: unknown key 'resolutoin'; did you mean 'resolution'?"
    ]


def test_resolution_that_is_no_power_of_two_is_refused(tmp_path: Path) -> None:
    [mistake] = mistakes_of(tmp_path, servers=SOUND.replace("2^-20", "0.001"))
    assert mistake == "servers.yaml:10: 'resolution': expected a power of two such as 2^-20, found 0.001"


def test_unknown_kind_is_refused(tmp_path: Path) -> None:
    [mistake] = mistakes_of(tmp_path, servers=SOUND.replace("gauge", "counter"))
    assert mistake == "servers.yaml:10: 'kind': expected gauge, state, event, label (one of these), found 'counter'"


def test_mistakes_of_all_files_come_at_once_and_in_chinese(tmp_path: Path) -> None:
    choose("zh")
    assert mistakes_of(
        tmp_path,
        network=SOUND.replace("host_cpu", "net_interface").replace("staleness_seconds", "stalenes_seconds"),
        servers=SOUND.replace("    core:", "    asset:"),
    ) == [
        "network.yaml:5: 未知的键 'stalenes_seconds'，是否想写 'staleness_seconds'?",
        "servers.yaml:8: 标签 'asset' 与保留名或字段重名",
    ]
