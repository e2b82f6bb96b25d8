"""Whether PostgreSQL's standbys are in step, how far they are behind, and who is master, asked at every server of a pair.

Measures: replication[pair]: is_running, is_in_sync, lag_seconds, lag_bytes, serving_sides_count, secondary_share_ratio,
both_master_seconds, no_master_seconds; role_group[group, kind database]: masters_count, members_count.
Needs: the extra `databases`; a role with pg_monitor (see `sample`). KingbaseES answers alike.
Reference: PostgreSQL documentation, chapter 28.2 (pg_stat_replication, pg_stat_wal_receiver), 9.27 (recovery control functions).

In sync: a synchronous standby that streams; an asynchronous one when its disk has everything that the primary wrote.
The lag in seconds is 0 only when no byte is missing: a paused replay shows milliseconds in replay_lag and megabytes in
bytes. With a token table the sides that serve are those that take a token which another side then shows; without one,
those that clients other than us are connected to. A side that does not answer is no side that serves.
"""

from collections.abc import Mapping, Sequence

import msgspec

from agent.databases import Row, Session, count
from agent.databases.postgresql import dial
from agent.errors import SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Surroundings
from agent.sources._pairs import Pair, PairsConfig, PairsSource

GRANTS = """-- PostgreSQL, on the primary; the standbys get it by replication
CREATE ROLE infravitals LOGIN PASSWORD '…' CONNECTION LIMIT 16;
GRANT pg_monitor TO infravitals;
-- only for tokens (continuity_probe, token_table):
CREATE TABLE infravitals_token (stream text, number bigint, sent_at double precision, PRIMARY KEY (stream, number));
GRANT SELECT, INSERT, DELETE ON infravitals_token TO infravitals;"""

FACTS = """
SELECT pg_is_in_recovery(),
  (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> current_user),
  CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
    THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) ELSE 0 END,
  (SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming')
"""
STANDBYS = """
SELECT state, sync_state, pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn),
  pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), extract(epoch FROM replay_lag)
FROM pg_stat_replication WHERE application_name <> 'pg_basebackup'
"""


class Config(PairsConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own."""


class Side(msgspec.Struct, frozen=True):
    """What one server says. standbys: of a primary, one row of STANDBYS each."""

    is_standby: bool
    clients: float
    replay_age_seconds: float
    is_receiving: bool
    standbys: Sequence[Row]


class Source(PairsSource[Side]):
    """All pairs; each is asked on its own."""

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings, "postgresql_replication", dial)

    async def read_server(self, session: Session, pair: Pair) -> Side:
        """Raises SourceError when a right is missing."""
        return await _read_side(session)

    def is_refused(self, error: SourceError) -> bool:
        """A standby."""
        return "read-only transaction" in str(error)

    def find_masters(self, known: Mapping[str, Side]) -> list[Side]:
        """Whatever is no standby."""
        return [side for side in known.values() if not side.is_standby]

    def read_state(self, known: Mapping[str, Side], masters: Sequence[Side]) -> dict[str, Value]:
        """By the primary's word where there is one primary, else by the standbys'."""
        return _read_state(known, masters)


async def _read_side(session: Session) -> Side:
    [[is_standby, clients, age, receiving]] = await session.query(FACTS)
    standbys = [] if is_standby else await session.query(STANDBYS)
    if any(row[0] is None for row in standbys):
        raise SourceError(
            say(
                "看不到复制状态：缺少权限，请执行 GRANT pg_monitor TO 该账号",
                "replication is hidden from this user: GRANT pg_monitor TO it",
            )
        )
    return Side(bool(is_standby), count(clients) or 0.0, max(0.0, count(age) or 0.0), bool(receiving), standbys)


def _read_state(known: Mapping[str, Side], masters: Sequence[Side]) -> dict[str, Value]:
    """In step and how far behind, by the primary's word where there is one primary, else by the standbys'."""
    standbys = [side for side in known.values() if side.is_standby]
    if len(masters) != 1:
        # nobody to be in step with, or two that go apart
        return {"is_running": False, "is_in_sync": False}
    rows = [row for row in masters[0].standbys if row[0] == "streaming"]
    if not rows:
        fields: dict[str, Value] = {"is_running": False, "is_in_sync": False}
        if standbys:
            fields["lag_seconds"] = max(side.replay_age_seconds for side in standbys)
        return fields
    best = min(rows, key=lambda row: count(row[3]) or 0.0)
    lag_bytes = max(0.0, count(best[3]) or 0.0)
    ages = [count(best[4]) or 0.0, *(side.replay_age_seconds for side in standbys if side.is_receiving)]
    is_synchronous = any(row[1] in ("sync", "quorum") for row in rows)
    return {
        "is_running": True,
        "is_in_sync": is_synchronous or min(count(row[2]) or 0.0 for row in rows) <= 0,
        "lag_bytes": lag_bytes,
        "lag_seconds": max(0.0, *ages) if lag_bytes else 0.0,
    }
