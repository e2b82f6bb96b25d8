"""multipath on answers in the shape of `multipathd show maps json`: this kernel has no device mapper, so no real volume is shown."""

import json

import pytest
from declared import undeclared

from agent.errors import NoData, SourceError
from agent.points import Value
from agent.sources import Output, Surroundings
from agent.sources.multipath import Config, Source


def answer(*checks: str, dm_st: str = "active") -> Output:
    ways = [
        {"dev": f"sd{n}", "dev_t": "8:0", "dm_st": dm_st, "dev_st": "running", "chk_st": check}
        for n, check in enumerate(checks)
    ]
    groups = [{"selector": "service-time 0", "pri": 50, "dm_st": "active", "group": 1, "paths": [way]} for way in ways]
    volume = {"name": "mpatha", "uuid": "36001", "sysfs": "dm-0", "paths": len(ways), "path_groups": groups}
    return Output(json.dumps({"major_version": 0, "minor_version": 1, "maps": [volume]}), "", 0)


async def look(output: Output) -> dict[str, Value]:
    async def command(argv: object, timeout_seconds: float) -> Output:
        assert argv == ("multipathd", "show", "maps", "json"), "it only looks"
        return output

    readings = await Source(Config(), Surroundings("his-db-1", command=command)).collect()
    assert undeclared("multipath", readings) == []
    assert readings[0].tags == {"group": "mpatha", "kind": "path"}
    return dict(readings[0].fields)


@pytest.mark.parametrize(
    ("checks", "healthy", "is_redundant", "is_healthy"),
    [
        (("ready", "ready"), 2, True, True),
        (("ready", "ghost"), 2, True, True),
        (("ready", "faulty"), 1, False, False),
        (("ready", "ready", "shaky"), 2, True, False),
        (("faulty", "faulty"), 0, False, False),
        (("ready",), 1, False, True),
    ],
)
async def test_volume_is_redundant_while_two_paths_work(
    checks: tuple[str, ...], healthy: int, is_redundant: bool, is_healthy: bool
) -> None:
    found = await look(answer(*checks))
    assert (found["members_count"], found["healthy_count"]) == (len(checks), healthy)
    assert (found["is_redundant"], found["is_healthy"]) == (is_redundant, is_healthy)


async def test_path_that_the_kernel_gave_up_is_not_healthy() -> None:
    assert (await look(answer("ready", "ready", dm_st="failed")))["healthy_count"] == 0


async def test_no_volume_is_no_data_and_a_daemon_that_is_gone_is_one_sentence() -> None:
    with pytest.raises(NoData):
        await look(Output('{"major_version": 0, "maps": []}', "", 0))
    with pytest.raises(SourceError, match="multipathd"):
        await look(Output("", "error -1 connecting to multipathd socket", 1))
