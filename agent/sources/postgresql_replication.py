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

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import msgspec

from agent.continuity.settings import Id
from agent.databases import Row, Session, count
from agent.databases.postgresql import dial
from agent.errors import NoData, SourceError
from agent.language import say
from agent.points import Value
from agent.sources import Reading, SourceConfig, Surroundings
from agent.sources._pairs import Mastery, Pair, Sides, find_serving_sides, share

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


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """pairs: by name."""

    pairs: dict[Id, Pair] = msgspec.field(default_factory=dict)
    answer_seconds: Annotated[float, msgspec.Meta(gt=0, le=60)] = 3.0


class Side(msgspec.Struct, frozen=True):
    """What one server says. standbys: of a primary, one row of STANDBYS each."""

    is_standby: bool
    clients: float
    replay_age_seconds: float
    is_receiving: bool
    standbys: Sequence[Row]


class Source:
    """All pairs; each is asked on its own."""

    systems: ClassVar[tuple[str, ...]] = ("linux", "darwin", "win32")
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._clock = surroundings.clock
        self._sides = {
            name: Sides(pair, f"postgresql_replication.pairs.{name}", dial, config.answer_seconds)
            for name, pair in config.pairs.items()
        }
        self._mastery = {name: Mastery(surroundings.monotonic) for name in config.pairs}

    async def open(self) -> None:
        """Sessions are opened as they are needed."""

    async def collect(self) -> list[Reading]:
        """Raises NoData without pairs, SourceError when no server of any pair answers or a right is missing everywhere."""
        if not self._sides:
            raise NoData(say("没有配置 pairs", "no pairs are configured"))
        found = await asyncio.gather(*(self._read_pair(name) for name in self._sides))
        troubles = [str(each) for each in found if isinstance(each, SourceError)]
        if len(troubles) == len(found):
            raise SourceError("; ".join(troubles))
        return [reading for each in found if not isinstance(each, SourceError) for reading in each]

    async def close(self) -> None:
        """Close all sessions."""
        await asyncio.gather(*(sides.close() for sides in self._sides.values()))

    async def _read_pair(self, name: str) -> list[Reading] | SourceError:
        sides = self._sides[name]
        answers = await sides.ask(_read_side)
        known = {key: side for key, side in answers.items() if not isinstance(side, SourceError)}
        if not known:
            return SourceError("; ".join(str(answer) for answer in answers.values()))
        masters = [side for side in known.values() if not side.is_standby]
        fields: dict[str, Value] = {**_read_state(known, masters), **self._mastery[name].note(len(masters))}
        fields.update(await self._read_load(name, known))
        roles: dict[str, Value] = {"masters_count": len(masters), "members_count": len(sides.names)}
        return [
            Reading("replication", fields, {"pair": name}),
            Reading("role_group", roles, {"group": name, "kind": "database"}),
        ]

    async def _read_load(self, name: str, known: Mapping[str, Side]) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        part = share([side.clients for side in known.values()])
        if part is not None and len(known) > 1:
            fields["secondary_share_ratio"] = part
        table = self._config.pairs[name].token_table
        serving: int | None = sum(side.clients > 0 for side in known.values())
        if table is not None:
            serving = await find_serving_sides(self._sides[name], table, name, int(self._clock() * 10), _is_read_only)
        if serving is not None:
            fields["serving_sides_count"] = serving
        return fields


def _is_read_only(error: SourceError) -> bool:
    return "read-only transaction" in str(error)


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
