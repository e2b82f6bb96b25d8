"""ceph against a real cluster of a monitor, a manager and two disks in memory: whole, one disk gone, the monitor gone, no right."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from declared import undeclared
from hospital.ceph import Cluster, ceph_cluster
from servers import until, until_async

from agent.errors import NoData, SourceError
from agent.language import speaking
from agent.points import Value
from agent.sources import Output, Surroundings
from agent.sources.ceph import GRANTS, Config, Source


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ceph_cluster(tmp_path_factory.mktemp("ceph")) as made:
        yield made


def ask(cluster: Cluster, **more: object) -> Source:
    written = {"file": str(cluster.file), "keyring": str(cluster.keyring), "deadline_seconds": 60, **more}
    return Source(msgspec.convert(written, Config), Surroundings("storage-1"))


async def look(source: Source) -> dict[str, dict[str, Value]]:
    readings = await source.collect()
    assert undeclared("ceph", readings) == []
    return {
        reading.name: dict(reading.fields) for reading in readings if reading.tags.get("pool", "images") == "images"
    }


async def test_whole_cluster_then_a_disk_that_dies_and_returns(cluster: Cluster) -> None:
    source = ask(cluster)
    await until_async(lambda: is_whole(source), 180)
    found = await look(source)
    assert found["quorum"] == {"has_quorum": True, "nodes_up_count": 1, "nodes_count": 1}
    assert found["storage_cluster"]["disks_up_count"] == 2 == found["storage_cluster"]["disks_in_count"]
    assert found["storage_cluster"].items() >= {"hosts_count": 1, "hosts_up_count": 1, "degraded_ratio": 0.0}.items()
    assert found["storage_cluster"]["groups_count"] == found["storage_cluster"]["groups_clean_count"]
    assert found["storage_cluster"]["has_errors"] is False
    assert found["replication"] == {"is_running": True, "is_in_sync": True}
    whole: dict[str, Value] = {"members_count": 2, "healthy_count": 2, "is_healthy": True, "is_redundant": True}
    assert found["redundant_group"] == whole
    pool = found["storage_pool"]
    assert (pool["copies_count"], pool["copies_required_count"], pool["is_synchronous"]) == (2, 1, True)
    assert 0 < float(pool["size_bytes"]) < 1e9 and float(pool["used_ratio"]) < 0.5

    cluster.end("osd.1")

    async def is_degraded() -> bool:
        now = await look(source)
        return now["storage_cluster"]["disks_up_count"] == 1 and now["replication"]["is_in_sync"] is False

    await until_async(is_degraded, 180)
    found = await look(source)
    assert found["redundant_group"]["is_redundant"] is False and found["redundant_group"]["healthy_count"] == 1
    assert found["storage_cluster"]["is_healthy"] is False and found["storage_pool"]["is_healthy"] is False
    cluster.start_disk(1)
    await until_async(lambda: is_whole(source), 180)


async def is_whole(source: Source) -> bool:
    found = await look(source)
    return found.get("replication", {}).get("is_in_sync") is True and found["storage_cluster"]["disks_up_count"] == 2


async def test_key_without_rights_is_told_the_caps_and_a_missing_one_its_place(
    cluster: Cluster, tmp_path: Path
) -> None:
    nobody = ask(cluster, user="client.nobody", keyring=str(cluster.folder / "nobody.keyring"))
    with (
        speaking("en"),
        pytest.raises(SourceError, match=r"client\.nobody may not read .*ceph auth caps client\.nobody mon 'allow r'"),
    ):
        await nobody.collect()
    absent = ask(cluster, keyring=str(tmp_path / "absent"))
    with speaking("en"), pytest.raises(SourceError, match=r"client\.infravitals .*absent"):
        await absent.collect()
    assert "mon 'allow r' mgr 'allow r'" in GRANTS


async def test_monitor_that_hangs_is_one_sentence_and_no_fact(cluster: Cluster) -> None:
    cluster.freeze("mon", is_frozen=True)
    try:
        with speaking("en"), pytest.raises(SourceError, match=r"no monitor answers|gave no answer within"):
            await ask(cluster, deadline_seconds=4).collect()
    finally:
        cluster.freeze("mon", is_frozen=False)
    until(lambda: '"quorum_names":["a"]' in cluster.run("status", "--format", "json"))


async def test_host_without_ceph_has_nothing_of_the_kind_and_nonsense_is_one_sentence(
    cluster: Cluster, tmp_path: Path
) -> None:
    with pytest.raises(NoData):
        await ask(cluster, file=str(tmp_path / "absent.conf")).collect()

    async def babble(argv: object, timeout_seconds: float) -> Output:
        return Output("{}", "", 0)

    config = msgspec.convert({"file": str(cluster.file)}, Config)
    with speaking("en"), pytest.raises(SourceError, match="cannot make sense of ceph"):
        await Source(config, Surroundings("storage-1", command=babble)).collect()
