"""pacemaker on recorded answers of crm_mon 2.1 and old ones; the real cluster is in tests/hospital/test_pacemaker.py."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from declared import undeclared

from agent.errors import SourceError
from agent.sources import Output, Surroundings
from agent.sources.pacemaker import Config, Source

RECORDED = Path(__file__).parent / "recorded_pacemaker"


async def look(output: Output) -> Mapping[str, Mapping[str, object]]:
    async def command(argv: object, timeout_seconds: float) -> Output:
        assert argv == ("crm_mon", "-1", "--output-as=xml")
        return output

    readings = await Source(Config(), Surroundings("his-db", command=command)).collect()
    assert undeclared("pacemaker", readings) == []
    return {reading.tags.get("unit", reading.name): dict(reading.fields) for reading in readings}


async def test_recorded_cluster_of_two_runs_its_resource() -> None:
    assert await look(Output((RECORDED / "two_nodes.xml").read_text(), "", 0)) == {
        "quorum": {"has_quorum": True, "is_manager_up": True, "nodes_up_count": 2, "nodes_count": 2},
        "role_group": {"masters_count": 1, "members_count": 2},
        "his-app": {"is_active": True, "has_restart_policy": True},
    }


async def test_recorded_survivor_has_nowhere_to_move_its_resource() -> None:
    found = await look(Output((RECORDED / "one_lost.xml").read_text(), "", 0))
    assert found["quorum"]["nodes_up_count"] == 1
    assert found["his-app"] == {"is_active": True, "has_restart_policy": False}


async def test_failed_blocked_and_unmanaged_resources_are_told_apart() -> None:
    text = (RECORDED / "two_nodes.xml").read_text()
    assert (await look(Output(text.replace('failed="false"', 'failed="true"'), "", 0)))["his-app"]["is_active"] is False
    unmanaged = await look(Output(text.replace('managed="true"', 'managed="false"'), "", 0))
    assert unmanaged["his-app"]["has_restart_policy"] is False
    assert (await look(Output(text.replace('with_quorum="true"', 'with_quorum="false"'), "", 0)))["quorum"][
        "has_quorum"
    ] is False


async def test_manager_that_is_down_is_a_fact_and_not_silence() -> None:
    recorded = Output((RECORDED / "not_running.xml").read_text(), "", 102)
    assert await look(recorded) == {"quorum": {"has_quorum": False, "is_manager_up": False, "nodes_up_count": 0}}


@pytest.mark.parametrize(
    "text", ["", "<crm", "<pacemaker-result><status code='4' message='denied'/></pacemaker-result>"]
)
async def test_answer_that_makes_no_sense_is_one_sentence(text: str) -> None:
    with pytest.raises(SourceError, match="crm_mon"):
        await look(Output(text, "permission denied", 1))
