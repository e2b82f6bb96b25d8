"""Whether Oracle Data Guard's standbys are in step, how far they are behind, who is primary, and whether its observer watches.

Measures: replication[pair]: is_running, is_in_sync, lag_seconds, is_switch_ready, mode (the protection mode), serving_sides_count,
secondary_share_ratio, both_master_seconds, no_master_seconds; role_group[group, kind database]: masters_count, members_count;
with fast-start failover quorum[cluster]: is_witness_reachable (an observer is there).
Needs: the extra `oracle` (no client to install); a user with the rights that `sample` prints. Nothing is changed.
Reference: Oracle Database Reference, V$DATABASE, V$DATAGUARD_STATS, V$ARCHIVE_DEST_STATUS.

In sync: the primary's synchronous destination says OK; an asynchronous standby when it has received all redo. A lag that was
computed of old data is at least so much older: a primary that is gone must not look like a lag of 0; both times are the standby's own, so
that no clock matters. A standby that is only mounted lets no plain user in: then the primary's word counts, and the lag is not known.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from agent.databases import Dial, Row, Session, count
from agent.databases.oracle import dial
from agent.errors import SourceError
from agent.points import Value
from agent.sources import Reading, Surroundings
from agent.sources._pairs import Pair, PairsConfig, PairsSource, refuse_tokens

GRANTS = """-- Oracle, on the primary (in a container database: in the root, as C##INFRAVITALS); the standbys get it by replication
CREATE USER infravitals IDENTIFIED BY "…";
GRANT CREATE SESSION TO infravitals;
GRANT SELECT ON v_$database TO infravitals;
GRANT SELECT ON v_$dataguard_stats TO infravitals;
GRANT SELECT ON v_$archive_dest_status TO infravitals;
GRANT SELECT ON v_$session TO infravitals;"""

FACTS = """
SELECT database_role, open_mode, protection_mode, switchover_status, fs_failover_status, fs_failover_observer_present,
  (SELECT count(*) FROM v$session WHERE type = 'USER' AND username <> user)
FROM v$database
"""
STATS = (
    "SELECT name, value, time_computed, datum_time FROM v$dataguard_stats WHERE name IN ('transport lag', 'apply lag')"
)
DESTINATIONS = (
    "SELECT status, synchronization_status, gap_status FROM v$archive_dest_status WHERE type IN ('PHYSICAL', 'LOGICAL')"
)

SWITCH_READY = ("TO STANDBY", "TO PRIMARY", "SESSIONS ACTIVE")
FRESH_SECONDS = 30.0
"""A standby hears of its primary every few seconds; what is older than this is told as lag."""

_INTERVAL = re.compile(r"\+(\d+) (\d+):(\d+):(\d+(?:\.\d+)?)")


class Config(PairsConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """database is the service's name."""

    def __post_init__(self) -> None:
        refuse_tokens(self.pairs)


class Side(msgspec.Struct, frozen=True):
    """What one database says. lags: seconds by name, of a standby. destinations: of a primary, one row of DESTINATIONS each."""

    role: str
    open_mode: str
    mode: str
    switchover: str
    fast_start: str
    has_observer: bool
    clients: float
    lags: Mapping[str, float]
    destinations: Sequence[Row]


class Source(PairsSource[Side]):
    """All pairs; each is asked on its own."""

    def __init__(self, config: Config, surroundings: Surroundings, dial: Dial = dial) -> None:
        super().__init__(config, surroundings, "oracle_dataguard", dial)

    async def read_server(self, session: Session, pair: Pair) -> Side:
        """Raises SourceError when a right is missing."""
        return await _read_side(session)

    def is_refused(self, error: SourceError) -> bool:
        """No tokens are written here."""
        return False

    def find_masters(self, known: Mapping[str, Side]) -> list[Side]:
        """Primaries that are open for writing."""
        return [side for side in known.values() if side.role == "PRIMARY" and side.open_mode == "READ WRITE"]

    def read_state(self, known: Mapping[str, Side], masters: Sequence[Side]) -> dict[str, Value]:
        """By the primary's word where there is one primary, the lag by the standbys'."""
        return _read_state(known, masters)

    def make_readings(self, name: str, known: Mapping[str, Side], load: Mapping[str, Value]) -> list[Reading]:
        """The observer of fast-start failover is the witness."""
        readings = super().make_readings(name, known, load)
        watched = [
            side for side in known.values() if side.role == "PRIMARY" and side.fast_start not in ("", "DISABLED")
        ]
        if watched:
            seen: dict[str, Value] = {"is_witness_reachable": all(side.has_observer for side in watched)}
            readings.append(Reading("quorum", seen, {"cluster": name}))
        return readings


async def _read_side(session: Session) -> Side:
    [[role, open_mode, mode, switchover, fast_start, observer, clients]] = await session.query(FACTS)
    is_primary = role == "PRIMARY"
    lags = {} if is_primary else read_lags(await session.query(STATS))
    destinations = await session.query(DESTINATIONS) if is_primary else []
    return Side(
        role=str(role),
        open_mode=str(open_mode),
        mode=str(mode),
        switchover=str(switchover),
        fast_start=str(fast_start or ""),
        has_observer=observer == "YES",
        clients=count(clients) or 0.0,
        lags=lags,
        destinations=destinations,
    )


def read_lags(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds by name, with the age of what they were computed of; a lag that Oracle does not know is left out."""
    found = {}
    for name, value, computed, datum in rows:
        matched = _INTERVAL.fullmatch(str(value or "").strip())
        age = _age(computed, datum)
        if matched is None or age is None:
            continue
        days, hours, minutes, seconds = map(float, matched.groups())
        lag = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        found[str(name)] = lag + (age if age > FRESH_SECONDS else 0.0)
    return found


def _age(computed: object, datum: object) -> float | None:
    try:
        then, now = (datetime.strptime(str(text), "%m/%d/%Y %H:%M:%S") for text in (datum, computed))  # noqa: DTZ007  one clock
    except ValueError:
        return None
    return max(0.0, (now - then).total_seconds())


def _read_state(known: Mapping[str, Side], masters: Sequence[Side]) -> dict[str, Value]:
    lags = [side.lags for side in known.values() if "apply lag" in side.lags]
    fields: dict[str, Value] = {"is_running": False, "is_in_sync": False, "is_switch_ready": False}
    if lags:
        fields["lag_seconds"] = min(each["apply lag"] for each in lags)
    if len(masters) != 1:
        return fields
    [primary] = masters
    valid = [row for row in primary.destinations if row[0] == "VALID" and row[2] in (None, "NO GAP")]
    has_all = any(each.get("transport lag") == 0 for each in lags)
    fields |= {
        "is_running": bool(valid),
        "is_in_sync": any(row[1] == "OK" for row in valid) or (bool(valid) and has_all),
        "is_switch_ready": bool(valid) and primary.switchover in SWITCH_READY,
        "mode": primary.mode,
    }
    return fields
