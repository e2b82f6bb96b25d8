"""drbd on answers in the shape of drbdsetup-status(8): this kernel has no DRBD 9, so no real mirror is shown."""

import json
from collections.abc import Mapping

import pytest
from declared import undeclared

from agent.errors import NoData, SourceError
from agent.sources import Output, Surroundings
from agent.sources.drbd import Config, Source


def mirror(**change: object) -> dict[str, object]:
    said: dict[str, object] = {
        "role": "Primary",
        "disk": "UpToDate",
        "quorum": True,
        "connection": "Connected",
        "peer_role": "Secondary",
        "replication": "Established",
        "peer_disk": "UpToDate",
        "out_of_sync": 0,
        **change,
    }
    volume = {
        "volume": 0,
        "replication-state": said["replication"],
        "peer-disk-state": said["peer_disk"],
        "out-of-sync": said["out_of_sync"],
        "percent-in-sync": 100.00,
    }
    peer = {
        "peer-node-id": 1,
        "name": "his-db-2",
        "connection-state": said["connection"],
        "peer-role": said["peer_role"],
    }
    return {
        "name": "his",
        "node-id": 0,
        "role": said["role"],
        "suspended": False,
        "devices": [{"volume": 0, "minor": 0, "disk-state": said["disk"], "quorum": said["quorum"], "size": 409600}],
        "connections": [{**peer, "peer_devices": [volume]}],
    }


async def look(output: Output) -> Mapping[str, Mapping[str, object]]:
    async def command(argv: object, timeout_seconds: float) -> Output:
        assert argv == ("drbdsetup", "status", "--json"), "it only looks"
        return output

    readings = await Source(Config(), Surroundings("his-db-1", command=command)).collect()
    assert undeclared("drbd", readings) == []
    return {reading.name: dict(reading.fields) for reading in readings}


async def said(**change: object) -> Mapping[str, Mapping[str, object]]:
    return await look(Output(json.dumps([mirror(**change)]), "", 0))


async def test_mirror_in_step() -> None:
    assert await said() == {
        "replication": {"is_running": True, "is_in_sync": True, "serving_sides_count": 1, "lag_bytes": 0},
        "role_group": {"is_master": True, "masters_count": 1, "members_count": 2},
        "quorum": {"has_quorum": True},
    }


@pytest.mark.parametrize(
    ("change", "is_running", "is_in_sync"),
    [
        ({"replication": "SyncSource", "peer_disk": "Inconsistent", "out_of_sync": 2048}, True, False),
        ({"connection": "StandAlone", "replication": "Off", "peer_disk": "DUnknown"}, False, False),
        ({"connection": "Connecting", "replication": "Off", "peer_disk": "DUnknown"}, False, False),
        ({"disk": "Diskless"}, True, False),
    ],
)
async def test_mirror_that_is_apart_is_told(change: dict[str, object], is_running: bool, is_in_sync: bool) -> None:
    found = (await said(**change))["replication"]
    assert (found["is_running"], found["is_in_sync"]) == (is_running, is_in_sync)


async def test_what_is_out_of_sync_is_bytes_and_two_primaries_are_two_masters() -> None:
    found = await said(out_of_sync=2048, peer_role="Primary", quorum=False)
    assert found["replication"]["lag_bytes"] == 2 * 1024**2
    assert found["role_group"]["masters_count"] == 2
    assert found["quorum"]["has_quorum"] is False


async def test_no_resource_is_no_data_and_nonsense_is_one_sentence() -> None:
    with pytest.raises(NoData):
        await look(Output("[\n]\n", "", 0))
    with pytest.raises(SourceError, match="drbdsetup"):
        await look(Output("his role:Primary", "", 0))
    with pytest.raises(SourceError, match="root"):
        await look(Output("", "Operation not permitted", 20))
