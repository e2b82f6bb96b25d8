"""Whether a Pacemaker cluster has quorum, how many of its nodes are up, which resources run, and whether the manager itself runs.

Measures: quorum[cluster]: has_quorum, is_manager_up, nodes_up_count, nodes_count; role_group[group, kind cluster]:
masters_count (coordinators seen), members_count; service_unit[unit]: is_active (of a
resource: started or promoted somewhere, and not failed), has_restart_policy (it is managed and has fencing or more than one node).
Needs: crm_mon, and to be root or in the group haclient. Nothing is changed.
Reference: crm_mon(8), its XML (--output-as=xml); Pacemaker Explained.

A cluster manager that does not run is the fact `is_manager_up` 0 with no quorum, not silence.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar
from xml.etree import ElementTree

import msgspec

from agent.continuity.settings import Id
from agent.errors import SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Output, Reading, SourceConfig, Surroundings

COMMAND_SHARE = 0.8
NOT_CONNECTED = (102, 107)
"""crm_mon's exit codes for a cluster that is not running here: CRM_EX_DISCONNECT, and ENOTCONN of older ones."""

RUNNING_ROLES = ("Started", "Promoted", "Unpromoted", "Master", "Slave")


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cluster: what it is called in the data."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=60)] = 60.0
    cluster: Id = "pacemaker"


class Source:
    """The cluster that this host is a node of."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._cluster = config.cluster
        self._command = surroundings.command
        self._timeout_seconds = config.deadline_seconds * COMMAND_SHARE

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """Raises NoData without crm_mon, SourceError when it hangs, may not look, or says what is not understood."""
        output = await self._command(("crm_mon", "-1", "--output-as=xml"), self._timeout_seconds)
        if output.status in NOT_CONNECTED or "cluster is not available" in output.stdout + output.stderr:
            down: dict[str, Value] = {"has_quorum": False, "is_manager_up": False, "nodes_up_count": 0}
            return [Reading("quorum", down, {"cluster": self._cluster})]
        return list(self._read(_parse(output)))

    async def close(self) -> None:
        """Nothing to close."""

    def _read(self, root: ElementTree.Element) -> Iterator[Reading]:
        nodes = [node.attrib for node in root.iterfind("nodes/node")]
        up = [node for node in nodes if node.get("online") == "true" and node.get("unclean") != "true"]
        leader = root.find("summary/current_dc")
        has_leader = leader is not None and leader.get("present") == "true"
        quorum: dict[str, Value] = {
            "has_quorum": has_leader and leader is not None and leader.get("with_quorum") == "true",
            "is_manager_up": True,
            "nodes_up_count": len(up),
            "nodes_count": len(nodes),
        }
        yield Reading("quorum", quorum, {"cluster": self._cluster})
        roles: dict[str, Value] = {
            "masters_count": sum(node.get("is_dc") == "true" for node in nodes),
            "members_count": len(nodes),
        }
        yield Reading("role_group", roles, {"group": self._cluster, "kind": "cluster"})
        options = root.find("summary/cluster_options")
        is_fenced = options is not None and options.get("stonith-enabled") == "true"
        yield from _read_resources(root, len(up) > 1 or is_fenced)


def _read_resources(root: ElementTree.Element, can_move: bool) -> Iterator[Reading]:
    """One service_unit per resource; the instances of a clone count as one, active while one of them is."""
    active: dict[str, bool] = {}
    managed: dict[str, bool] = {}
    for resource in root.iterfind("resources//resource"):
        name = resource.get("id", "")
        runs = resource.get("role") in RUNNING_ROLES and resource.get("active") == "true"
        active[name] = active.get(name, False) or (runs and resource.get("failed") != "true")
        managed[name] = resource.get("managed") == "true" and resource.get("blocked") != "true"
    for name in sorted(active):
        fields: dict[str, Value] = {"is_active": active[name], "has_restart_policy": managed[name] and can_move}
        yield Reading("service_unit", fields, {"unit": name})


def _parse(output: Output) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(output.stdout)  # noqa: S314 - a program of this host, which root installed
    except ElementTree.ParseError as error:
        why = (output.stderr.strip().splitlines() or output.stdout.strip().splitlines() or ["?"])[0][:120]
        raise SourceError(
            say(f"看不懂 crm_mon 的回答：{why}", f"cannot make sense of what crm_mon says: {why}")
        ) from error
    if root.find("summary") is None:
        message = root.find("status")
        text = message.get("message", "") if message is not None else ""
        raise SourceError(
            say(
                f"crm_mon 没有给出集群状态：{text}；须为 root 或属于 haclient 组",
                f"crm_mon gives no state of the cluster: {text}; be root or in the group haclient",
            )
        )
    return root
