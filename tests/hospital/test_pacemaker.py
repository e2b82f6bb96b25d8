"""pacemaker: two nodes, one is lost; what the source says on the survivor is what crm_mon was told by a real cluster.

Beside each source runs the mutant that says what it said when all was well: the same assertions are red for it.
"""

import json
import re
import sys
from pathlib import Path

import pytest
from hospital.cluster import Node
from hospital.lan import Lan
from hospital.test_vip import Gathering
from servers import until


def gather(node: Node, folder: Path, *, is_mutant: bool = False) -> Gathering:
    name = f"{node.host}-mutant" if is_mutant else node.host
    config, output = folder / f"{name}.json", folder / f"{name}.jsonl"
    config.write_text(json.dumps({"cluster": "hosp"}))
    words = [*node.inside, sys.executable, "-m", "hospital.people", "gather", "pacemaker", config, folder / "state"]
    node.lan.start(node.host, *words, log=output, environment={"HOSPITAL_MUTANT": "1"} if is_mutant else {})
    return Gathering(output)


def assert_loss_is_seen(found: Gathering, patience_seconds: float) -> None:
    """The node is lost; the resource runs and has nowhere left to go."""
    until(lambda: holds(found.last("quorum"), nodes_up_count=1, is_manager_up=True), patience_seconds)
    until(lambda: holds(found.last("service_unit"), is_active=True, has_restart_policy=False), patience_seconds)


def holds(fields: dict[str, object], **expected: object) -> bool:
    """Whether one and the same row says all of this."""
    return expected.items() <= fields.items()


def runner(node: Node) -> str:
    """Where the resource runs, by the word of `node`."""
    found = re.search(
        r'<resource id="his-app".*?<node name="([^"]+)"', node.say("crm_mon", "-1", "--output-as=xml"), re.DOTALL
    )
    return found[1] if found else ""


def test_pacemaker_loses_a_node_and_the_resource_moves(tmp_path: Path) -> None:
    with Lan("node1", "node2") as lan:
        nodes = [Node(lan, host, tmp_path) for host in lan.hosts]
        for node in nodes:
            node.start()
        agents = {node.host: gather(node, tmp_path) for node in nodes}
        mutants = {node.host: gather(node, tmp_path, is_mutant=True) for node in nodes}
        for found in (*mutants.values(), *agents.values()):
            until(lambda found=found: found.last("quorum").get("nodes_up_count") == 2, 60)  # type: ignore[misc]
            until(lambda found=found: found.last("service_unit").get("is_active") is True, 60)  # type: ignore[misc]
        whole = {"has_quorum": True, "is_manager_up": True, "nodes_up_count": 2, "nodes_count": 2}
        until(lambda: found.last("quorum") == whole, 60)
        until(lambda: found.last("role_group") == {"masters_count": 1, "members_count": 2}, 60)

        victim = runner(nodes[0])
        [survivor] = [node for node in nodes if node.host != victim]
        [lost] = [node for node in nodes if node.host == victim]
        found = agents[survivor.host]
        lost.kill()
        until(lambda: found.last("quorum").get("nodes_up_count") == 1, 60)
        until(lambda: runner(survivor) == survivor.host, 60)
        assert_loss_is_seen(found, 60)
        with pytest.raises(AssertionError, match="not so within"):
            assert_loss_is_seen(mutants[survivor.host], 2)

        lan.kill_all(survivor.host, "pacemakerd")
        until(lambda: holds(found.last("quorum"), is_manager_up=False, has_quorum=False), 60)
