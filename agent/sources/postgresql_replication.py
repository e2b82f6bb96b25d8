"""Whether PostgreSQL's standbys are in step, how far they are behind, and who is master, asked at every server of a pair.

Measures: replication[pair]: is_running, is_in_sync, lag_seconds, lag_bytes, serving_sides_count, secondary_share_ratio,
both_master_seconds, no_master_seconds; role_group[group, kind database]: masters_count, members_count.
Needs: the extra `databases`; a role with pg_monitor (see `sample`). KingbaseES answers alike.
Reference: PostgreSQL documentation, chapter 28.2 (pg_stat_replication, pg_stat_wal_receiver), 9.27 (recovery control functions).

In sync: a synchronous standby that streams; an asynchronous one when its disk has everything that the primary wrote.
The lag in seconds is 0 only when no byte is missing: a paused replay shows milliseconds in replay_lag and megabytes in
bytes. With a token table the sides that serve are those that take a token which another side then shows; without one,
those that clients other than us are connected to. A side that does not answer is no side that serves.

A standby counts its lag from the primary's time of a commit to its own: what the two clocks are apart is taken out of it, and told.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import msgspec

from agent.databases import Row, Session, count
from agent.databases.postgresql import dial
from agent.errors import SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Reading, Surroundings
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
  (SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'), extract(epoch FROM clock_timestamp())
"""
CLOCKS_APART_SECONDS = 5.0
"""From here on it is told; what asking takes is far below it."""

_log = logging.getLogger(__name__)

STANDBYS = """
SELECT state, sync_state, pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn),
  pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn), extract(epoch FROM replay_lag)
FROM pg_stat_replication WHERE application_name <> 'pg_basebackup'
"""


class Config(PairsConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing of its own."""


class Side(msgspec.Struct, frozen=True):
    """What one server says. standbys: of a primary, one row of STANDBYS each. ahead_seconds: its clock before ours."""

    is_standby: bool
    clients: float
    replay_age_seconds: float
    is_receiving: bool
    standbys: Sequence[Row]
    ahead_seconds: float


class Source(PairsSource[Side]):
    """All pairs; each is asked on its own."""

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings, "postgresql_replication", dial)
        self._apart: set[str] = set()

    async def read_server(self, session: Session, pair: Pair) -> Side:
        """Raises SourceError when a right is missing."""
        return await _read_side(session, self._clock)

    def is_refused(self, error: SourceError) -> bool:
        """A standby."""
        return "read-only transaction" in str(error)

    def find_masters(self, known: Mapping[str, Side]) -> list[Side]:
        """Whatever is no standby."""
        return [side for side in known.values() if not side.is_standby]

    def read_state(self, known: Mapping[str, Side], masters: Sequence[Side]) -> dict[str, Value]:
        """By the primary's word where there is one primary, else by the standbys'."""
        return _read_state(known, masters)

    def make_readings(self, name: str, known: Mapping[str, Side], load: Mapping[str, Value]) -> list[Reading]:
        """With a remark where the clocks are apart, which is logged once when it begins and once when it ends."""
        remark = _explain_clocks(name, known)
        if bool(remark) != (name in self._apart):
            _log.warning(
                remark or say(f"{name}：各服务器的时钟又一致了", f"{name}: the clocks of the servers agree again")
            )
            self._apart ^= {name}
        first, *others = super().make_readings(name, known, load)
        return [msgspec.structs.replace(first, remark=remark), *others]


def _explain_clocks(name: str, known: Mapping[str, Side]) -> str:
    """A sentence where the servers' clocks are apart; '' where they agree."""
    ordered = sorted(known, key=lambda where: known[where].ahead_seconds)
    behind, ahead = ordered[0], ordered[-1]
    apart = known[ahead].ahead_seconds - known[behind].ahead_seconds
    if apart < CLOCKS_APART_SECONDS:
        return ""
    return say(
        f"{name}：{ahead} 的时钟比 {behind} 快 {apart:.0f} 秒；请校准两台服务器的时钟(chrony)，延迟已扣除此差",
        f"{name}: the clock of {ahead} is {apart:.0f} s before that of {behind}; set both by chrony; the lag is told without it",
    )


async def _read_side(session: Session, clock: Callable[[], float]) -> Side:
    began = clock()
    [[is_standby, clients, age, receiving, now]] = await session.query(FACTS)
    ahead_seconds = (count(now) or 0.0) - (began + clock()) / 2
    standbys = [] if is_standby else await session.query(STANDBYS)
    if any(row[0] is None for row in standbys):
        raise SourceError(
            say(
                "看不到复制状态：缺少权限，请执行 GRANT pg_monitor TO 该账号",
                "replication is hidden from this user: GRANT pg_monitor TO it",
            )
        )
    return Side(bool(is_standby), count(clients) or 0.0, count(age) or 0.0, bool(receiving), standbys, ahead_seconds)


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
            fields["lag_seconds"] = max(0.0, *(_age_of(side, masters[0]) for side in standbys))
        return fields
    best = min(rows, key=lambda row: count(row[3]) or 0.0)
    lag_bytes = max(0.0, count(best[3]) or 0.0)
    ages = [count(best[4]) or 0.0, *(_age_of(side, masters[0]) for side in standbys if side.is_receiving)]
    is_synchronous = any(row[1] in ("sync", "quorum") for row in rows)
    return {
        "is_running": True,
        "is_in_sync": is_synchronous or min(count(row[2]) or 0.0 for row in rows) <= 0,
        "lag_bytes": lag_bytes,
        "lag_seconds": max(0.0, *ages) if lag_bytes else 0.0,
    }


def _age_of(standby: Side, primary: Side) -> float:
    """How long ago, by one clock, the primary committed what the standby replayed last."""
    return standby.replay_age_seconds - (standby.ahead_seconds - primary.ahead_seconds)
