"""What a whole scorecard costs: `python tests/bench/bench_scorecard.py [SHARE]`. Prints a table, asserts nothing.

A registered site of 5,000 subjects with the shipped rules, 30 days of them: a sample every 5 minutes, of what hosts say of
themselves every hour. Most subjects are asked by one to four questions, the few storage pools and backup copies by seven.
Cold: nothing is kept yet. Warm: the hourly pass, one hour of raw points beside kept buckets; one of them ends a day, and
the questions about days read that day. The points are put into the file as columns, past the line. SHARE: of the subjects,
1 without it.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from bench_kept import Counter, Spent, counting

from agent import catalogue
from agent.points import Point
from collector.evaluate import Rules, evaluate
from collector.inquiry import Site
from collector.query import DAY_MS, HOUR_MS
from collector.ruleset import load_rules
from collector.score import Scorecard
from collector.site_folder import Calendar, Entry, Section, SiteFolder
from collector.stores import LATENESS_MS, AppliedBatch
from collector.stores._duckdb_schema import KEPT_TABLES
from collector.stores.duckdb import Config
from collector.stores.duckdb import Store as DuckDB

ZONE = ZoneInfo("Asia/Shanghai")
SITE = "hospital"
START = 1_760_054_400_000 + 14 * HOUR_MS
"""Two hours before a midnight of the site: the second warm pass ends a day."""

DAYS = 30
WARM_PASSES = 4
HOURS = DAYS * 24 + WARM_PASSES + 1
EVERY_MS = 300_000
INTERVAL_SECONDS = EVERY_MS / 1000
MEMORY_BYTES = 2**30
"""What DuckDB may use; numpy's arrays come on top."""
COLD_LIMIT_SECONDS = 20.0
WARM_LIMIT_SECONDS = 3.0
MOST_ROWS = 2_000_000
"""Of one insert."""


class Kind(NamedTuple):
    """Subjects of one measurement. asset, tags: of the subject with a number; fields: name -> (least, greatest)."""

    measurement: str
    count: int
    asset: Callable[[int], str]
    tags: Callable[[int], Mapping[str, str]]
    fields: Mapping[str, tuple[float, float]]
    every_ms: int = EVERY_MS


# -- the site

ON = (1.0, 1.0)
PER_DEVICE, PER_DATABASE, PER_HYPERVISOR = 20, 10, 25


def _no_tags(_: int) -> Mapping[str, str]:
    return {}


def _named(prefix: str, each: int = 1) -> Callable[[int], str]:
    return lambda number: f"{prefix}-{number // each:04d}"


def _tagged(tag: str, prefix: str, **others: str) -> Callable[[int], Mapping[str, str]]:
    return lambda number: {tag: f"{prefix}-{number:04d}", **others}


def kinds(share: float) -> list[Kind]:
    """Everything that is seen at the site; what says how often it is seen comes with `rounds`."""

    def some(count: int) -> int:
        return max(1, round(count * share))

    loads = {"cpu_busy_ratio": (0.1, 0.9), "memory_used_ratio": (0.2, 0.8)}
    traffic = {
        "busy_ratio": (0.0, 0.7),
        "speed_bits_per_second": (1e10, 1e10),
        "error_ratio": (0.0, 1e-6),
        "discard_ratio": (0.0, 1e-6),
    }
    copying = {"is_in_sync": ON, "is_running": ON, "lag_seconds": (0.0, 5.0), "serving_sides_count": (2.0, 2.0)}
    lines = {
        "is_up": ON,
        "live_routes_count": (2.0, 2.0),
        "has_tested_fallback": ON,
        "committed_bits_per_second": (1e8, 1e8),
    }
    paths = {
        "rtt_seconds": (0.001, 0.01),
        "one_way_delay_seconds": (0.001, 0.01),
        "jitter_seconds": (0.0, 0.01),
        "loss_ratio": (0.0, 0.01),
    }
    pools = {
        "size_bytes": (1e13, 1e13),
        "used_ratio": (0.3, 0.7),
        "time_to_full_seconds": (2e7, 3e7),
        "is_virtualised": ON,
        "is_dual_controller": ON,
        "is_distributed": ON,
        "is_synchronous": ON,
    }
    copies = {
        "full_age_seconds": (0.0, 8e4),
        "verified_age_seconds": (0.0, 8e4),
        "is_automatic": ON,
        "is_offsite": ON,
        "is_isolated": ON,
        "is_immutable": ON,
    }
    protection = {"is_running": ON, "signature_age_seconds": (0.0, 9e4)}
    server, probe = _named("srv"), _named("probe", 10)
    return [
        Kind("asset_info", some(2000), server, _no_tags, {"is_virtual": ON, "is_up": ON}, HOUR_MS),
        Kind("endpoint_protection", some(2000), server, _no_tags, protection),
        Kind("net_interface", some(1200), _named("sw", PER_DEVICE), _tagged("interface", "eth"), traffic),
        Kind("device_load", some(60), _named("sw"), _tagged("component", "slot"), loads),
        Kind("replication", some(100), _named("db", PER_DATABASE), _tagged("pair", "pair"), copying),
        Kind("service_probe", some(240), probe, _tagged("service", "svc", probe="http"), {"is_up": ON}),
        Kind("storage_pool", some(100), _named("array", 10), _tagged("pool", "pool"), pools),
        Kind("virtual_machine", some(800), _named("hv", PER_HYPERVISOR), _tagged("vm", "vm"), {"is_ha_protected": ON}),
        Kind("platform_member", some(200), _named("vc", 100), _tagged("member", "member"), {"is_reporting": ON}),
        Kind("path_probe", some(50), _named("dci", 10), _tagged("target", "to", probe="icmp"), paths),
        Kind("path_probe", some(50), _named("tele", 10), _tagged("target", "to", probe="twamp"), paths),
        Kind("line", some(50), _named("tele", 10), _tagged("line", "line"), lines),
        Kind("backup_copy", some(50), _named("bak", 25), _tagged("system", "sys", copy="full"), copies),
        Kind("virtual_segment", some(100), _named("vc", 100), _tagged("segment", "seg"), {"has_live_sensor": ON}),
    ]


ATTRIBUTES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "srv": {"class": ("server",), "role": ("application",)},
    "sw": {"class": ("network",), "role": ("core",)},
    "db": {"class": ("appliance",), "role": ("database",), "criticality": ("critical",)},
    "hv": {"role": ("hypervisor",), "criticality": ("critical",)},
    "dci": {"class": ("probe",), "role": ("inter-site-probe",)},
    "tele": {"class": ("probe",), "role": ("telemedicine-probe",)},
    "svc": {"criticality": ("critical",)},
    "sys": {"criticality": ("critical",)},
    "line": {"role": ("telemedicine",)},
}
"""Beginning of an id -> what the register says of it."""

SECTIONS: Mapping[str, Section] = {"service": "services", "system": "services", "line": "links"}


def assets_of(seen: Sequence[Kind]) -> list[str]:
    """All assets of the site."""
    return sorted({kind.asset(number) for kind in seen for number in range(kind.count)})


def make_site(seen: Sequence[Kind]) -> Site:
    """The site with everything that is seen in its register, and working hours."""
    entries: dict[Section, dict[str, Entry]] = {"assets": {}, "services": {}, "links": {}}
    ids: list[tuple[Section, str]] = [("assets", asset) for asset in assets_of(seen)]
    for kind in seen:
        tags = [kind.tags(number) for number in range(kind.count)]
        ids += [(SECTIONS[tag], value) for one in tags for tag, value in one.items() if tag in SECTIONS]
    for section, identity in ids:
        attributes = ATTRIBUTES.get(identity.partition("-")[0], {})
        entries[section][identity] = Entry(identity, section, attributes, since=START - DAY_MS)
    hours = Calendar(dict.fromkeys(range(5), ((8 * 60, 18 * 60),)))
    return Site(SITE, ZONE, SiteFolder(ZONE, True, entries, calendars={"busy": hours, "service-hours": hours}))


def rounds(assets: Sequence[str]) -> Kind:
    """What every asset's agent says of its own rounds."""
    fields = {"interval_seconds": (INTERVAL_SECONDS, INTERVAL_SECONDS), "is_success": ON, "is_complete": ON}
    return Kind(
        "source_round",
        len(assets),
        lambda number: assets[number],
        lambda _: {"source": "host_inventory", "target": "local"},
        fields,
    )


# -- the store


def first_round(store: DuckDB, all_kinds: Sequence[Kind]) -> list[int]:
    """Makes all series, and says that they are still seen; gives the number of the first one of each kind."""
    firsts, made = [], 0
    for kind in all_kinds:
        fields = {name: least for name, (least, _) in kind.fields.items()}
        points = [
            Point(kind.measurement, {"asset": kind.asset(number), **kind.tags(number)}, fields, START)
            for number in range(kind.count)
        ]
        identity = f"boot/{made}"
        store.write([AppliedBatch(SITE, "gateway", "boot", made, identity, START, START, points, 0, ())])
        firsts.append(made)
        made += kind.count
    connection = store._open().connection
    for measurement in {kind.measurement for kind in all_kinds}:
        connection.run(f"DELETE FROM points.{measurement}")  # a name of the catalogue
    connection.run("UPDATE series SET last_seen = ?", [START + HOURS * HOUR_MS])
    return firsts


def fill(store: DuckDB, all_kinds: Sequence[Kind]) -> int:
    """The points of all kinds, as columns; gives how many."""
    chance = np.random.default_rng(1)
    written = 0
    for kind, first in zip(all_kinds, first_round(store, all_kinds), strict=True):
        for columns in _columns(kind, first, chance):
            store._open().connection.insert(f"points.{kind.measurement}", columns)
            written += len(columns["time"])
    store._open().connection.run("CHECKPOINT")
    return written


def _columns(kind: Kind, first: int, chance: np.random.Generator) -> Iterator[dict[str, np.ndarray]]:
    count = HOURS * HOUR_MS // kind.every_ms
    step = max(1, MOST_ROWS // kind.count)
    for start in range(0, count, step):
        part = np.arange(start, min(start + step, count))
        series = np.tile(np.arange(kind.count, dtype=np.int32), len(part))
        columns = {
            "series": series + np.int32(first),
            "time": START + np.repeat(part * kind.every_ms, kind.count) + series % 1000,
            "written": np.arange(start * kind.count, start * kind.count + len(series)),
        }
        for name, (least, greatest) in kind.fields.items():
            columns[name] = least + (greatest - least) * chance.integers(0, 2**20, len(series)) / 2**20
        yield columns


# -- the passes


class Bench(NamedTuple):
    """What every pass needs."""

    store: DuckDB
    rules: Rules
    site: Site
    counter: Counter

    def card(self, title: str, as_of: int, limit: float) -> tuple[Scorecard, Spent]:
        """One scorecard as the server evaluates it for an hour; prints what it took and read."""
        self.counter.take()
        wall, cpu = time.perf_counter(), time.process_time()
        card = evaluate(self.store, self.rules, self.site, as_of, as_of + LATENESS_MS)
        spent = Spent(time.perf_counter() - wall, time.process_time() - cpu)
        raw, from_kept = self.counter.take()
        _say(title, spent, raw, from_kept, limit)
        return card, spent

    def keep(self) -> None:
        """Has what was read kept, and says what that took."""
        wall, cpu = time.perf_counter(), time.process_time()
        chunks = self.store.keep()
        print(f"    keep: {chunks:,} chunks, {time.perf_counter() - wall:.2f} s, cpu {time.process_time() - cpu:.2f} s")


def _say(title: str, spent: Spent, raw: int, from_kept: int, limit: float) -> None:
    ratios = f"{spent.wall / limit:.2f}x of the limit, by cpu {spent.cpu / limit:.2f}x"
    print(f"{title:30} {spent.wall:8.2f} {spent.cpu:8.2f} {raw:14,} {from_kept:14,}   {ratios}", flush=True)


def run(bench: Bench) -> None:
    """Cold, then hour by hour, and the last one cold again, which must be the same."""
    as_of = START + DAYS * DAY_MS
    print(f"\n{'':30} {'wall s':>8} {'cpu s':>8} {'raw samples':>14} {'kept buckets':>14}")
    card, _ = bench.card("cold", as_of, COLD_LIMIT_SECONDS)
    bench.keep()
    plain = []
    for _ in range(WARM_PASSES):
        as_of += HOUR_MS
        ends_day = (as_of - START) % DAY_MS == 2 * HOUR_MS
        card, spent = bench.card("warm, a day ends" if ends_day else "warm", as_of, WARM_LIMIT_SECONDS)
        plain += [] if ends_day else [spent]
        bench.keep()
    wall, cpu = (statistics.median(column) for column in zip(*plain, strict=True))
    print(
        f"{'warm, median without the day':30} {wall:8.2f} {cpu:8.2f}{'':33}{wall / WARM_LIMIT_SECONDS:.2f}x of the limit"
    )
    for table in KEPT_TABLES:
        bench.store._open().connection.run(f"DELETE FROM {table}")
    cold, _ = bench.card("the last one, cold", as_of, COLD_LIMIT_SECONDS)
    print(f"\nwarm and cold are {'the same' if card.identity() == cold.identity() else 'DIFFERENT'}")
    _say_result(cold)


def _say_result(card: Scorecard) -> None:
    results = [one for node in card.nodes for one in node.criteria]
    answers = [question.subjects for one in results for question in one.questions]
    scored = sum(one.status == "scored" for one in results)
    print(f"{scored} of {len(results)} criteria scored, {len(answers)} questions, {sum(answers):,} answers of subjects")


def main() -> None:
    """Fills and evaluates in a temporary directory."""
    counter = counting()
    seen = kinds(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
    all_kinds = [*seen, rounds(assets_of(seen))]
    subjects = len({(kind.asset(n), *kind.tags(n).items()) for kind in seen for n in range(kind.count)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.duckdb"
        with DuckDB(Config(path=str(path), memory_bytes=MEMORY_BYTES), catalogue.load()) as store:
            began = time.perf_counter()
            samples = fill(store, all_kinds)
            print(
                f"{samples:,} samples of {subjects:,} subjects over {DAYS} days, written as columns in "
                f"{time.perf_counter() - began:.0f} s; file: {path.stat().st_size / 1e6:.0f} MB"
            )
            run(Bench(store, load_rules(None).rules, make_site(seen), counter))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {peak:,.0f} MB")


if __name__ == "__main__":
    main()
