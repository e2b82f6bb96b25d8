"""Whether a Ceph cluster is in order: its monitors' quorum, its disks and hosts, its placement groups, its pools and their room.

Measures: quorum[cluster]: has_quorum, nodes_up_count, nodes_count (monitors); storage_cluster[cluster]: is_healthy, has_errors,
disks_count, disks_up_count, disks_in_count, hosts_count, hosts_up_count (a host with a disk that is up), groups_count, groups_clean_count,
degraded_ratio, misplaced_ratio (of objects); storage_pool[pool]: size_bytes, used_bytes, used_ratio, copies_count, copies_required_count,
is_distributed, is_virtualised, is_synchronous, is_healthy; redundant_group[group, kind disk]: members_count, healthy_count, is_healthy,
is_redundant; replication[pair]: is_running, is_in_sync.
Needs: the program `ceph` and a key that may read (`sample` prints how it is made). Nothing is changed.
Reference: Ceph documentation, `ceph status`, `ceph osd tree`, `ceph osd pool ls detail`, `ceph df`, their JSON; placement group states.

In sync means that every placement group is active and clean. Monitors that do not answer are an error and no fact: a line that is cut
looks the same from here. What the manager daemon counts is left out while there is none.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar, TypeVar

import msgspec

from agent.continuity.settings import Id
from agent.errors import NoData, SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Output, Reading, SourceConfig, Surroundings

COMMAND_SHARE = 0.8
GRANTS = """ceph auth get-or-create client.infravitals mon 'allow r' mgr 'allow r' -o /etc/ceph/ceph.client.infravitals.keyring
chgrp GROUP /etc/ceph/ceph.client.infravitals.keyring   # of the user that the agent runs as
chmod 640 /etc/ceph/ceph.client.infravitals.keyring"""

T = TypeVar("T")


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """cluster: what it is called in the data. file, keyring: of Ceph; user: whose key it is."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=60)] = 60.0
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    cluster: Id = "ceph"
    file: str = "/etc/ceph/ceph.conf"
    user: Annotated[str, msgspec.Meta(pattern=r"^client\.[A-Za-z0-9._-]+$")] = "client.infravitals"
    keyring: str = "/etc/ceph/ceph.client.infravitals.keyring"


class Health(msgspec.Struct, frozen=True):
    """status: HEALTH_OK, HEALTH_WARN or HEALTH_ERR."""

    status: str


class Monitors(msgspec.Struct, frozen=True):
    """How many monitors there should be. Older versions list them, newer ones count."""

    num_mons: int | None = None
    mons: tuple[object, ...] = ()


class Disks(msgspec.Struct, frozen=True):
    """OSDs: there, up, and in (they are given data)."""

    num_osds: int
    num_up_osds: int
    num_in_osds: int


class State(msgspec.Struct, frozen=True):
    """How many placement groups are in a state such as `active+undersized+degraded`."""

    state_name: str
    count: int


class Groups(msgspec.Struct, frozen=True):
    """Placement groups, as the manager daemon counts them; the ratios are there only while they are not 0."""

    num_pgs: int = 0
    pgs_by_state: tuple[State, ...] = ()
    degraded_ratio: float = 0.0
    misplaced_ratio: float = 0.0

    def count(self, *words: str) -> int:
        """Groups whose state has all of these words."""
        return sum(one.count for one in self.pgs_by_state if set(words) <= set(one.state_name.split("+")))

    @property
    def is_clean(self) -> bool:
        """Whether all are there with all their copies."""
        return self.num_pgs == self.count("active", "clean")


class Manager(msgspec.Struct, frozen=True):
    """Whether a manager daemon counts."""

    available: bool = False


class Status(msgspec.Struct, frozen=True):
    """`ceph status`."""

    health: Health
    quorum_names: tuple[str, ...]
    monmap: Monitors
    osdmap: Disks
    pgmap: Groups
    mgrmap: Manager = Manager()


class Node(msgspec.Struct, frozen=True):
    """A line of `ceph osd tree`: a host with its disks, or a disk."""

    id: int
    type: str
    children: tuple[int, ...] = ()
    status: str = ""


class Tree(msgspec.Struct, frozen=True):
    """`ceph osd tree`."""

    nodes: tuple[Node, ...]


class Pool(msgspec.Struct, frozen=True):
    """A line of `ceph osd pool ls detail`. size: copies (or pieces) kept; min_size: with fewer it takes no writes."""

    pool_id: int
    pool_name: str
    size: int
    min_size: int


class Room(msgspec.Struct, frozen=True):
    """What a pool holds and may take yet, in its own bytes, copies not counted."""

    stored: float = 0.0
    max_avail: float = 0.0


class Used(msgspec.Struct, frozen=True):
    """A pool in `ceph df`."""

    id: int
    stats: Room


class Usage(msgspec.Struct, frozen=True):
    """`ceph df`."""

    pools: tuple[Used, ...]


class Source:
    """One cluster."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._root = surroundings.root
        self._command = surroundings.command
        self._timeout_seconds = config.deadline_seconds * COMMAND_SHARE

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """Raises NoData without Ceph here, SourceError when no monitor answers, the key may not read, or nothing is understood."""
        if not (self._root / self._config.file.lstrip("/")).exists():
            raise NoData(say(f"没有 {self._config.file}", f"there is no {self._config.file}"))
        asked = (
            asyncio.create_task(self._ask(Status, "status")),
            asyncio.create_task(self._ask(Tree, "osd", "tree")),
            asyncio.create_task(self._ask(tuple[Pool, ...], "osd", "pool", "ls", "detail")),
            asyncio.create_task(self._ask(Usage, "df")),
        )
        await asyncio.gather(*asked, return_exceptions=True)  # each to its end: no program outlives its round
        status, tree, pools, usage = asked[0].result(), asked[1].result(), asked[2].result(), asked[3].result()
        readings = [self._read_quorum(status), self._read_cluster(status, tree)]
        if status.mgrmap.available:
            readings += [self._read_replication(status), self._read_disks(status, pools)]
            room = {one.id: one.stats for one in usage.pools}
            readings += [_read_pool(pool, room.get(pool.pool_id, Room()), status) for pool in pools]
        return readings

    async def close(self) -> None:
        """Nothing to close."""

    async def _ask(self, kind: type[T], *words: str) -> T:
        config = self._config
        who = ("-c", config.file, "-n", config.user, "--keyring", config.keyring)
        seconds = max(1, int(self._timeout_seconds) - 1)
        argv = ("ceph", *who, "--connect-timeout", str(seconds), *words, "--format", "json")
        output = await self._command(argv, self._timeout_seconds)
        if output.status:
            raise SourceError(self._explain(output))
        try:
            return msgspec.json.decode(output.stdout, type=kind)
        except msgspec.DecodeError as error:
            said = " ".join(words)
            text = say(f"看不懂 ceph {said} 的回答：{error}", f"cannot make sense of ceph {said}: {error}")
            raise SourceError(text) from error

    def _explain(self, output: Output) -> str:
        lines = [line for line in output.stderr.splitlines() if line.strip()]
        why = (lines[-1] if lines else f"exit {output.status}").strip()[:200]
        user, keyring = self._config.user, self._config.keyring
        if any(word in output.stderr for word in ("EACCES", "EPERM", "permission", "Permission", "access denied")):
            return say(
                f"{user} 没有读取权限({why})；请执行 ceph auth caps {user} mon 'allow r' mgr 'allow r'，并核对 {keyring}",
                f"{user} may not read ({why}); run ceph auth caps {user} mon 'allow r' mgr 'allow r', and see {keyring}",
            )
        if any(word in output.stderr for word in ("keyring", "conf_read_file", "object not found", "ObjectNotFound")):
            return say(
                f"{user} 的密钥用不了({why})；应在 {keyring}，做法见 infravitals-agent sample ceph",
                f"the key of {user} is of no use ({why}); it belongs in {keyring}, `infravitals-agent sample ceph` says how",
            )
        return say(
            f"没有监视器应答({why})；请核对 {self._config.file} 中的地址，以及监视器是否有法定票数",
            f"no monitor answers ({why}); check the addresses in {self._config.file}, and that the monitors have a quorum",
        )

    def _read_quorum(self, status: Status) -> Reading:
        monitors = status.monmap
        fields: dict[str, Value] = {
            "has_quorum": True,  # without it nobody would have answered
            "nodes_up_count": len(status.quorum_names),
            "nodes_count": monitors.num_mons if monitors.num_mons is not None else len(monitors.mons),
        }
        return Reading("quorum", fields, {"cluster": self._config.cluster})

    def _read_cluster(self, status: Status, tree: Tree) -> Reading:
        up = {node.id for node in tree.nodes if node.type == "osd" and node.status == "up"}
        hosts = [node for node in tree.nodes if node.type == "host" and node.children]
        fields: dict[str, Value] = {
            "is_healthy": status.health.status == "HEALTH_OK",
            "has_errors": status.health.status == "HEALTH_ERR",
            "disks_count": status.osdmap.num_osds,
            "disks_up_count": status.osdmap.num_up_osds,
            "disks_in_count": status.osdmap.num_in_osds,
            "hosts_count": len(hosts),
            "hosts_up_count": sum(bool(up & set(host.children)) for host in hosts),
        }
        if status.mgrmap.available:
            fields |= {
                "groups_count": status.pgmap.num_pgs,
                "groups_clean_count": status.pgmap.count("active", "clean"),
                "degraded_ratio": status.pgmap.degraded_ratio,
                "misplaced_ratio": status.pgmap.misplaced_ratio,
            }
        return Reading("storage_cluster", fields, {"cluster": self._config.cluster})

    def _read_replication(self, status: Status) -> Reading:
        groups = status.pgmap
        fields: dict[str, Value] = {
            "is_running": groups.count("active") == groups.num_pgs,
            "is_in_sync": groups.is_clean,
        }
        return Reading("replication", fields, {"pair": self._config.cluster})

    def _read_disks(self, status: Status, pools: Sequence[Pool]) -> Reading:
        disks = status.osdmap
        healthy = min(disks.num_up_osds, disks.num_in_osds)
        fields: dict[str, Value] = {
            "members_count": disks.num_osds,
            "healthy_count": healthy,
            "is_healthy": healthy == disks.num_osds,
            "is_redundant": status.pgmap.is_clean and bool(pools) and all(pool.size > pool.min_size for pool in pools),
        }
        return Reading("redundant_group", fields, {"group": self._config.cluster, "kind": "disk"})


def _read_pool(pool: Pool, room: Room, status: Status) -> Reading:
    size = room.stored + room.max_avail
    fields: dict[str, Value] = {
        "size_bytes": size,
        "used_bytes": room.stored,
        "copies_count": pool.size,
        "copies_required_count": pool.min_size,
        "is_distributed": True,
        "is_virtualised": True,
        "is_synchronous": pool.size > 1,  # a write is acknowledged when all copies have it
        "is_healthy": status.pgmap.is_clean,
    }
    if size > 0:
        fields["used_ratio"] = room.stored / size
    return Reading("storage_pool", fields, {"pool": pool.pool_name})
