"""Whether MySQL's or MariaDB's replicas are in step, or a Galera cluster whole, asked at every server.

Measures: replication[pair]: is_running, is_in_sync, lag_seconds, lag_bytes, serving_sides_count, secondary_share_ratio,
both_master_seconds, no_master_seconds (not of Galera, where every node is master); role_group[group, kind database]:
masters_count, members_count; of Galera: quorum[cluster]: has_quorum, nodes_up_count, nodes_count.
Needs: the extra `databases`; a user with the rights that `sample` prints. GoldenDB and TDSQL of the MySQL family answer alike.
Reference: MySQL 8.0 manual 13.7.7.35 (SHOW REPLICA STATUS; MariaDB keeps the old names of its columns); Galera documentation,
status variables (wsrep_local_state 4 = Synced).

A node that is up and not Primary refuses work: it counts as down. A replica is in step when it has executed all that its
master wrote, by the master's own position where the user may see it, else by what it has received.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from agent.databases import Session, count
from agent.databases.mysql import dial
from agent.errors import SourceError
from agent.points import Value
from agent.sources import Reading, Surroundings
from agent.sources._pairs import Pair, PairsConfig, PairsSource

GRANTS = """CREATE USER infravitals@'%' IDENTIFIED BY '…';
-- MariaDB
GRANT SLAVE MONITOR, BINLOG MONITOR ON *.* TO infravitals@'%';
-- MySQL: GRANT REPLICATION CLIENT ON *.* TO infravitals@'%';
-- only for tokens (continuity_probe, token_table):
CREATE TABLE infravitals_token (stream varchar(64), number bigint, sent_at double, PRIMARY KEY (stream, number)) ENGINE=InnoDB;
GRANT SELECT, INSERT, DELETE ON infravitals_token TO infravitals@'%';"""

SYNCED = "4"
OWN_SESSIONS = (
    "SELECT count(*) FROM information_schema.processlist WHERE user = substring_index(current_user(), '@', 1)"
)


class Config(PairsConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Galera cluster is a pair with three addresses and more."""


class Node(msgspec.Struct, frozen=True):
    """What one server says. galera: its wsrep_ status, empty without Galera. replica: SHOW REPLICA STATUS, empty on a master.

    position: file and byte of its own log, None where it has none or the user may not see it.
    """

    is_read_only: bool
    clients: float
    galera: Mapping[str, str]
    replica: Mapping[str, object]
    position: tuple[str, float] | None

    @property
    def is_whole(self) -> bool:
        """Whether this Galera node takes work."""
        return self.galera.get("wsrep_ready") == "ON" and self.galera.get("wsrep_cluster_status") == "Primary"


class Source(PairsSource[Node]):
    """All pairs; each is asked on its own."""

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings, "mysql_replication", dial)

    async def read_server(self, session: Session, pair: Pair) -> Node:
        """Raises SourceError when a right is missing."""
        return await _read_node(session)

    def is_refused(self, error: SourceError) -> bool:
        """Read only, or a Galera node that is not Primary: it answers, and takes no token."""
        return any(words in str(error) for words in ("read-only", "read_only", "WSREP has not yet prepared"))

    def find_masters(self, known: Mapping[str, Node]) -> list[Node]:
        """Whatever takes writes and is no replica."""
        return [node for node in known.values() if not node.is_read_only and not _is_replica(node)]

    def read_state(self, known: Mapping[str, Node], masters: Sequence[Node]) -> dict[str, Value]:
        """By the replicas' word."""
        return _read_state(known, masters)

    def make_readings(self, name: str, known: Mapping[str, Node], load: Mapping[str, Value]) -> list[Reading]:
        """Of a Galera cluster its own: every node is master there."""
        if any(node.galera for node in known.values()):
            return _read_galera(name, known, len(self._sides[name].names), load)
        return super().make_readings(name, known, load)


def _is_replica(node: Node) -> bool:
    """Whether it replicates from another now; one whose both threads were stopped for good is no replica any more."""
    return "No" not in (_running(node, "IO"), _running(node, "SQL")) and bool(node.replica)


def _running(node: Node, thread: str) -> str:
    return _word(node.replica, f"Replica_{thread}_Running", f"Slave_{thread}_Running")


def _word(row: Mapping[str, object], *names: str) -> str:
    """The first of these columns that is there: new names, then the old ones."""
    return next((str(row[name]) for name in names if row.get(name) is not None), "")


async def _read_node(session: Session) -> Node:
    status = await session.query(
        "SHOW GLOBAL STATUS WHERE variable_name LIKE 'wsrep\\_%' OR variable_name = 'Threads_connected'"
    )
    facts = {str(name).lower(): str(value) for name, value in status}
    asked = await session.query("SHOW GLOBAL VARIABLES WHERE variable_name IN ('wsrep_on', 'read_only')")
    settings = {str(name).lower(): str(value) for name, value in asked}
    [[own]] = await session.query(OWN_SESSIONS)
    clients = max(0.0, (count(facts.get("threads_connected")) or 0.0) - (count(own) or 0.0))
    galera = {key: value for key, value in facts.items() if key.startswith("wsrep_")}
    if settings.get("wsrep_on") != "ON":
        galera = {}
    replica: list[dict[str, object]] = [] if galera else await _show_replica(session)
    is_read_only = settings.get("read_only") not in ("OFF", "NO_LOCK", "0")
    position = None if galera else await _show_position(session)
    return Node(is_read_only, clients, galera, replica[0] if replica else {}, position)


async def _show_replica(session: Session) -> list[dict[str, object]]:
    try:
        return await session.named("SHOW REPLICA STATUS")
    except SourceError as error:
        if "syntax" not in str(error):
            raise
        return await session.named("SHOW SLAVE STATUS")


async def _show_position(session: Session) -> tuple[str, float] | None:
    for statement in ("SHOW MASTER STATUS", "SHOW BINARY LOG STATUS"):
        try:
            rows = await session.named(statement)
        except SourceError:
            if not session.is_usable:
                raise
            continue
        return (str(rows[0]["File"]), count(rows[0]["Position"]) or 0.0) if rows else None
    return None


def _read_state(known: Mapping[str, Node], masters: Sequence[Node]) -> dict[str, Value]:
    """How the replicas stand, the best of them; the master's position tells what they have not even received."""
    replicas = [node for node in known.values() if node.replica]
    running = [node for node in replicas if _running(node, "IO") == "Yes" == _running(node, "SQL")]
    if len(masters) != 1 or not running:
        return {"is_running": False, "is_in_sync": False}
    best = min(running, key=_rank)
    read = (
        _word(best.replica, "Source_Log_File", "Master_Log_File"),
        _at(best, "Read_Source_Log_Pos", "Read_Master_Log_Pos"),
    )
    done = (
        _word(best.replica, "Relay_Source_Log_File", "Relay_Master_Log_File"),
        _at(best, "Exec_Source_Log_Pos", "Exec_Master_Log_Pos"),
    )
    written = masters[0].position or read
    behind = _behind(best)
    fields: dict[str, Value] = {"is_running": True, "is_in_sync": done == written}
    if behind is not None:
        fields["lag_seconds"] = 0.0 if done == written else behind
    if done[0] == written[0]:
        fields["lag_bytes"] = max(0.0, written[1] - done[1])
    return fields


def _rank(node: Node) -> float:
    behind = _behind(node)
    return math.inf if behind is None else behind


def _behind(node: Node) -> float | None:
    return count(_word(node.replica, "Seconds_Behind_Source", "Seconds_Behind_Master") or None)


def _at(node: Node, *names: str) -> float:
    return count(_word(node.replica, *names) or None) or 0.0


def _read_galera(name: str, known: Mapping[str, Node], members: int, load: Mapping[str, Value]) -> list[Reading]:
    whole = [node for node in known.values() if node.is_whole]
    synced = [node for node in whole if node.galera.get("wsrep_local_state") == SYNCED]
    is_in_sync = len(synced) > 1 and len(synced) == len(whole)
    fields: dict[str, Value] = {"is_running": len(whole) > 1, "is_in_sync": is_in_sync, **load}
    if is_in_sync:
        fields["lag_seconds"] = 0.0  # a commit is on every node before it is acknowledged
    quorum: dict[str, Value] = {
        "has_quorum": bool(whole),
        "nodes_up_count": len(synced),
        "nodes_count": members,
    }
    roles: dict[str, Value] = {"masters_count": len(whole), "members_count": members}
    return [
        Reading("replication", fields, {"pair": name}),
        Reading("quorum", quorum, {"cluster": name}),
        Reading("role_group", roles, {"group": name, "kind": "database"}),
    ]
