"""Whether a database of an AlwaysOn availability group is in step, how far its replicas are behind, who is primary, and its quorum.

Measures: replication[pair]: is_running, is_in_sync, lag_seconds, lag_bytes, is_switch_ready, mode (the availability mode),
serving_sides_count, secondary_share_ratio, both_master_seconds, no_master_seconds; role_group[group, kind database]: masters_count, members_count;
on a failover cluster quorum[cluster]: has_quorum, nodes_up_count, nodes_count, is_witness_reachable (where there is a witness).
Needs: the extra `sqlserver`; a login with the rights that `sample` prints; SQL Server authentication. Nothing is changed.
Reference: SQL Server, sys.dm_hadr_database_replica_states, sys.dm_hadr_availability_replica_states,
sys.dm_hadr_database_replica_cluster_states, sys.availability_replicas, sys.dm_hadr_cluster, sys.dm_hadr_cluster_members.

In sync: a secondary that is SYNCHRONIZED, connected and not suspended; an asynchronous one never is, it counts when nothing waits to be
sent. A secondary tells of itself only, the primary of all: its word counts where there is one primary.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from agent.databases import Dial, Row, Session, count
from agent.databases.sqlserver import dial
from agent.errors import SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Reading, Surroundings
from agent.sources._pairs import Pair, PairsConfig, PairsSource, refuse_tokens

GRANTS = """-- SQL Server, on every instance of the group
CREATE LOGIN infravitals WITH PASSWORD = '…';
GRANT VIEW ANY DEFINITION TO infravitals;
GRANT VIEW SERVER STATE TO infravitals;
-- from 2022 instead of the line before: GRANT VIEW SERVER PERFORMANCE STATE TO infravitals;"""

KIBIBYTE = 1024
REPLICAS = """
SELECT d.is_local, s.role_desc, s.connected_state_desc, r.availability_mode_desc, d.synchronization_state_desc, d.is_suspended,
  d.log_send_queue_size, d.redo_queue_size, d.secondary_lag_seconds, c.is_failover_ready
FROM sys.dm_hadr_database_replica_states AS d
JOIN sys.dm_hadr_availability_replica_states AS s ON s.replica_id = d.replica_id AND s.group_id = d.group_id
JOIN sys.availability_replicas AS r ON r.replica_id = d.replica_id
LEFT JOIN sys.dm_hadr_database_replica_cluster_states AS c
  ON c.replica_id = d.replica_id AND c.group_database_id = d.group_database_id
WHERE d.database_id = DB_ID(%s)
"""
CLIENTS = "SELECT count(*) FROM sys.dm_exec_sessions WHERE is_user_process = 1 AND login_name <> SUSER_SNAME()"
CLUSTER = "SELECT quorum_state_desc FROM sys.dm_hadr_cluster"
MEMBERS = "SELECT member_type_desc, member_state_desc FROM sys.dm_hadr_cluster_members"


class Config(PairsConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """database is one that the availability group holds."""

    def __post_init__(self) -> None:
        refuse_tokens(self.pairs)
        for name, pair in self.pairs.items():
            if pair.tls == "require":
                raise ValueError(
                    say(
                        f"'{name}'：python-tds 只在能核对证书时加密；请写 ca，或去掉 tls: require",
                        f"'{name}': python-tds enciphers only with a certificate to check; give a ca, or take tls: require away",
                    )
                )


class Replica(NamedTuple):
    """One row of REPLICAS."""

    is_local: object
    role: object
    connected: object
    mode: object
    state: object
    is_suspended: object
    send_kibibytes: object
    redo_kibibytes: object
    lag_seconds: object
    is_failover_ready: object

    @property
    def is_running(self) -> bool:
        """Whether data flows to it."""
        return (
            self.connected == "CONNECTED" and not self.is_suspended and self.state in ("SYNCHRONIZED", "SYNCHRONIZING")
        )

    @property
    def is_in_step(self) -> bool:
        """Whether it holds all that the primary wrote."""
        return self.is_running and (self.state == "SYNCHRONIZED" or count(self.send_kibibytes) == 0)

    @property
    def lag_bytes(self) -> float | None:
        """What is not sent or not redone yet."""
        parts = [count(self.send_kibibytes), count(self.redo_kibibytes)]
        return None if None in parts else sum(part or 0.0 for part in parts) * KIBIBYTE


class Instance(msgspec.Struct, frozen=True):
    """What one instance says. quorum: None without a failover cluster."""

    replicas: Sequence[Replica]
    clients: float
    quorum: str | None
    members: Sequence[Row]

    @property
    def is_primary(self) -> bool:
        """Whether it holds itself primary of the database."""
        return any(one.is_local and one.role == "PRIMARY" for one in self.replicas)


class Source(PairsSource[Instance]):
    """All pairs; each is asked on its own."""

    def __init__(self, config: Config, surroundings: Surroundings, dial: Dial = dial) -> None:
        super().__init__(config, surroundings, "sqlserver_alwayson", dial)

    async def read_server(self, session: Session, pair: Pair) -> Instance:
        """Raises SourceError when a right is missing or the database is in no group there."""
        return await _read_instance(session, pair.database)

    def is_refused(self, error: SourceError) -> bool:
        """No tokens are written here."""
        return False

    def find_masters(self, known: Mapping[str, Instance]) -> list[Instance]:
        """Those that hold themselves primary."""
        return [one for one in known.values() if one.is_primary]

    def read_state(self, known: Mapping[str, Instance], masters: Sequence[Instance]) -> dict[str, Value]:
        """By the primary's word where there is one primary."""
        return _read_state(masters)

    def make_readings(self, name: str, known: Mapping[str, Instance], load: Mapping[str, Value]) -> list[Reading]:
        """The failover cluster's quorum comes with it, as the worst of the instances sees it."""
        clustered = [one for one in known.values() if one.quorum is not None]
        readings = super().make_readings(name, known, load)
        if clustered:
            readings.append(Reading("quorum", _read_quorum(clustered), {"cluster": name}))
        return readings


async def _read_instance(session: Session, database: str) -> Instance:
    replicas = [Replica(*row) for row in await session.query(REPLICAS, (database,))]
    if not replicas:
        raise SourceError(
            say(
                f"数据库 {database} 在此实例上不属于任何可用性组，或账号看不到；请核对 database，并执行 sample 打印的 GRANT",
                f"the database {database} is in no availability group of this instance, or is hidden from the user; check `database` and run "
                "the GRANT that `sample` prints",
            )
        )
    [[clients]] = await session.query(CLIENTS)
    cluster = await session.query(CLUSTER)
    quorum = str(cluster[0][0]) if cluster and cluster[0][0] else None
    members = await session.query(MEMBERS) if quorum is not None else []
    return Instance(replicas, count(clients) or 0.0, quorum, members)


def _read_state(masters: Sequence[Instance]) -> dict[str, Value]:
    fields: dict[str, Value] = {"is_running": False, "is_in_sync": False, "is_switch_ready": False}
    if len(masters) != 1:
        return fields
    secondaries = [one for one in masters[0].replicas if not one.is_local]
    running = [one for one in secondaries if one.is_running]
    if not running:
        return fields
    best = min(running, key=lambda one: (not one.is_in_step, count(one.lag_seconds) or 0.0))
    fields |= {
        "is_running": True,
        "is_in_sync": best.is_in_step,
        "is_switch_ready": any(bool(one.is_failover_ready) for one in running),
        "mode": str(best.mode),
    }
    if (behind := count(best.lag_seconds)) is not None:
        fields["lag_seconds"] = behind
    if best.lag_bytes is not None:
        fields["lag_bytes"] = best.lag_bytes
    return fields


def _read_quorum(clustered: Sequence[Instance]) -> dict[str, Value]:
    def ups(kind: str) -> list[float]:
        return [sum(state == "UP" for name, state in one.members if kind in str(name)) for one in clustered]

    nodes = max(sum(name == "CLUSTER_NODE" for name, _ in one.members) for one in clustered)
    fields: dict[str, Value] = {
        "has_quorum": all(one.quorum in ("NORMAL_QUORUM", "FORCED_QUORUM") for one in clustered),
        "nodes_up_count": min(ups("CLUSTER_NODE")),  # a node without quorum is shown no member at all
    }
    if nodes:
        fields["nodes_count"] = nodes
    if any("WITNESS" in str(name) for one in clustered for name, _ in one.members):
        fields["is_witness_reachable"] = min(ups("WITNESS")) > 0
    return fields
