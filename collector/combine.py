"""What combines several answers: named functions over numbers, never over rows of a store. No I/O. Listed in docs/rules.md.

Every function is monotone in each input: when an input gets better (in the direction given for it), the result does not
get worse. So the result at worst comes of all inputs at worst, and the result at best of all at best; a missing input
counts as its worst and its best. A value of None means that it is proven that nothing happened.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agent.catalogue import Text
from collector.rulebook import Better

HOUR, DAY = 3600.0, 86_400.0


class Row(NamedTuple):
    """One subject: its labels, the value of each input, and which of the two readings this is.

    An input without a direction is None when it is not known exactly.
    """

    labels: Mapping[str, str]
    values: Mapping[str, float | None]
    is_best: bool

    def number(self, name: str) -> float:
        """The value of an input that is a number whatever happened."""
        value = self.values[name]
        if value is None:
            raise ValueError(f"{name} of {dict(self.labels)} holds no number")
        return value


@dataclass(frozen=True)
class Combination:
    """A function with the direction of each input (None: the function itself sees to both readings) and of its result.

    each: from one subject to a number, the steps across follow; whole: from all subjects to one number.
    """

    title: Text
    inputs: Mapping[str, Better | None]
    better: Better | None
    each: Callable[[Row], float | None] | None = None
    whole: Callable[[Sequence[Row]], float | None] | None = None


COMBINATIONS: dict[str, Combination] = {}
"""Name in a rule -> what it does."""


def _for_each(
    name: str, zh: str, en: str, inputs: Mapping[str, Better | None], better: Better | None
) -> Callable[[Callable[[Row], float | None]], Callable[[Row], float | None]]:
    def declare(function: Callable[[Row], float | None]) -> Callable[[Row], float | None]:
        COMBINATIONS[name] = Combination(Text(zh, en), inputs, better, each=function)
        return function

    return declare


def _for_all(
    name: str, zh: str, en: str, inputs: Mapping[str, Better | None], better: Better | None
) -> Callable[[Callable[[Sequence[Row]], float | None]], Callable[[Sequence[Row]], float | None]]:
    def declare(function: Callable[[Sequence[Row]], float | None]) -> Callable[[Sequence[Row]], float | None]:
        COMBINATIONS[name] = Combination(Text(zh, en), inputs, better, whole=function)
        return function

    return declare


# -- of any number of inputs, whatever they are called: all have the direction of the scale

ANY_INPUTS = ("least-of", "greatest-of", "sum-of")


@_for_each("least-of", "各输入中最小的", "the least of the inputs", {}, None)
def take_least(row: Row) -> float | None:
    """The least of those that are numbers."""
    return min((value for value in row.values.values() if value is not None), default=None)


@_for_each("greatest-of", "各输入中最大的", "the greatest of the inputs", {}, None)
def take_greatest(row: Row) -> float | None:
    """The greatest of those that are numbers."""
    return max((value for value in row.values.values() if value is not None), default=None)


@_for_each("sum-of", "各输入之和", "the sum of the inputs", {}, None)
def take_sum(row: Row) -> float | None:
    """The sum of those that are numbers."""
    known = [value for value in row.values.values() if value is not None]
    return math.fsum(known) if known else None


# -- with names of their own


@_for_each(
    "level-in-service",
    "在用(占比达到 1)时取其等级，否则为 0",
    "the level while in service (a share of 1), else 0",
    {"level": "higher", "in_service": "higher"},
    "higher",
)
def take_level_in_service(row: Row) -> float:
    """A boundary that is not in service isolates nothing."""
    return row.number("level") if row.number("in_service") >= 1 else 0.0


@_for_each(
    "tier-when-healthy",
    "健康时间占比不低于 99% 时取其层级，否则为 0",
    "the tier of a sensor that was healthy for 99 % of the time, else 0",
    {"tier": "higher", "healthy": "higher"},
    "higher",
)
def take_tier_when_healthy(row: Row) -> float:
    """A sensor that was down for more than a hundredth of the month is not counted on."""
    return row.number("tier") if row.number("healthy") >= 0.99 else 0.0


@_for_each(
    "dual-active-share",
    "两侧同时服务计 1，复制在运行计 0.7，否则 0",
    "1 when both sides serve, 0.7 when replication runs, else 0",
    {"serving": "higher", "running": "higher"},
    "higher",
)
def take_dual_active_share(row: Row) -> float:
    """Active-passive counts 0.7 of active-active: our own judgement."""
    if row.number("running") < 1:
        return 0.0
    return 1.0 if row.number("serving") >= 2 else 0.7


@_for_each(
    "recovery-if-automatic",
    "恢复时间；有人参与的至少计 15 分钟",
    "the recovery time; at least 15 minutes when a person took part",
    {"time": "lower", "automatic": "higher"},
    "lower",
)
def take_recovery_if_automatic(row: Row) -> float | None:
    """Full marks are for a switch that needed nobody; with a person the best rung is that of 15 minutes."""
    time = row.values["time"]
    if time is None:
        return None
    automatic = row.values["automatic"]
    return time if automatic is not None and automatic >= 1 else max(time, 900.0)


@_for_each(
    "ride-through-level",
    "4：不少于 15 分钟、两路、发电机可用；3：不少于 15 分钟、两路；2：不少于 7 分钟；1：有后备；0：无",
    "4: 15 min, two feeds and a generator; 3: 15 min and two feeds; 2: 7 min; 1: any time; 0: none",
    {"runtime": "higher", "feeds": "higher", "generator": "higher"},
    "higher",
)
def take_ride_through_level(row: Row) -> float:
    """Battery time at the present load, feeds that are up, a generator that is available."""
    runtime = row.number("runtime")
    if runtime >= 15 * 60 and row.number("feeds") >= 2:
        return 4.0 if row.number("generator") >= 1 else 3.0
    return 2.0 if runtime >= 7 * 60 else 1.0 if runtime > 0 else 0.0


@_for_each(
    "route-level",
    "3：至少两条运营商路由；2：一条，另有经测试的备用通道；1：一条；0：无",
    "3: two providers' routes; 2: one and a tested fallback; 1: one; 0: none",
    {"routes": "higher", "fallback": "higher"},
    "higher",
)
def take_route_level(row: Row) -> float:
    """Live routes, and whether a mobile or VPN fallback has been tested."""
    routes = row.number("routes")
    if routes >= 2:
        return 3.0
    return 0.0 if routes < 1 else 2.0 if row.number("fallback") >= 1 else 1.0


@_for_each(
    "headroom-level",
    "3：已用不超过 70% 且 180 天内写不满；2：不超过 80% 且 90 天；1：不超过 90%；0：更满",
    "3: at most 70 % used and 180 d to full; 2: 80 % and 90 d; 1: 90 %; 0: fuller",
    {"used": "lower", "time_to_full": "higher"},
    "higher",
)
def take_headroom_level(row: Row) -> float:
    """Used capacity and the days until it is full by the linear trend."""
    used, days = row.number("used"), row.number("time_to_full") / DAY
    if used <= 0.7 and days >= 180:
        return 3.0
    if used <= 0.8 and days >= 90:
        return 2.0
    return 1.0 if used <= 0.9 else 0.0


@_for_each(
    "isolated-age",
    "隔离或不可篡改的副本取其校验年龄，其余视为没有",
    "the verified age of a copy that is isolated or immutable; others count as none",
    {"verified_age": "lower", "isolated": "higher", "immutable": "higher"},
    "lower",
)
def take_isolated_age(row: Row) -> float:
    """A copy that production credentials can alter protects against nothing."""
    is_safe = row.number("isolated") >= 1 or row.number("immutable") >= 1
    return row.number("verified_age") if is_safe else NEVER_SECONDS


NEVER_SECONDS = 315_360_000.0
"""Ten years: the age of what never happened."""


@_for_each(
    "age-of-findings",
    "漏洞未修复时长与距上次完整扫描时间中较大的：没有扫描就不知道有没有漏洞",
    "the greater of the findings' age and the scan's: without a scan nobody knows of findings",
    {"findings_age": "lower", "scan_age": "lower"},
    "lower",
)
def take_age_of_findings(row: Row) -> float:
    """What a scan of 60 days ago did not find may have been open for 60 days."""
    return max(row.number("findings_age"), row.number("scan_age"))


@_for_each(
    "containment-level",
    "3：自动且 5 分钟内；2：60 分钟内；1：只发现；0：不发现",
    "3: automatic within 5 min; 2: within 60 min; 1: detection only; 0: none",
    {"contained_after": "lower", "contained": "higher", "automatic": "higher"},
    "higher",
)
def take_containment_level(row: Row) -> float | None:
    """How rogue wireless is met; None when it is proven that there was none."""
    after = row.values["contained_after"]
    if row.values["contained"] is None:
        return None
    if after is None or row.number("contained") < 1 or after > HOUR:
        return 1.0
    automatic = row.values["automatic"]
    is_automatic = row.is_best if automatic is None else automatic >= 1  # nobody said how: unknown
    return 3.0 if is_automatic and after <= 300 else 2.0


@_for_each(
    "loss-or-restore-point",
    "有切换时取实测丢失；证实没有切换时取恢复点年龄，且不优于 30 分钟",
    "the measured loss of a switchover; where none is proven, the restore point's age, no better than 30 min",
    {"measured": "lower", "restore_point_age": "lower"},
    "lower",
)
def take_loss_or_restore_point(row: Row) -> float:
    """Without a switchover the score is limited to 85 points, which 30 minutes earn: our own judgement."""
    measured = row.values["measured"]
    return measured if measured is not None else max(row.number("restore_point_age"), 1800.0)


@_for_all(
    "backup-level",
    "4：全部系统 24 小时内有自动的异地全备；3：关键系统 24 小时内、全部 7 天内；2：全部 7 天内；1：更旧；0：没有",
    "4: all systems within 24 h, automatic and off-site; 3: key ones within 24 h, all within 7 d; 2: all within 7 d; 1: older; 0: none",
    {"full_age": "lower", "automatic": "higher", "offsite": "higher"},
    "higher",
)
def take_backup_level(rows: Sequence[Row]) -> float | None:
    """System by system the best of its copies; the label `criticality` tells the key systems."""
    systems: dict[str, list[Row]] = {}
    for row in rows:
        systems.setdefault(row.labels.get("system", ""), []).append(row)
    if not systems:
        return None
    ages = {name: min(copy.number("full_age") for copy in copies) for name, copies in systems.items()}
    if max(ages.values()) >= NEVER_SECONDS:
        return 0.0
    if all(any(_is_proper_copy(copy) for copy in copies) for copies in systems.values()):
        return 4.0
    if max(ages.values()) > 7 * DAY:
        return 1.0
    key = [
        ages[name] for name, copies in systems.items() if "critical" in copies[0].labels.get("criticality", "").split()
    ]
    return 3.0 if key and max(key) <= DAY else 2.0


def _is_proper_copy(copy: Row) -> bool:
    is_where_and_how = copy.number("automatic") >= 1 and copy.number("offsite") >= 1
    return is_where_and_how and copy.number("full_age") <= DAY


@_for_all(
    "pooled-share",
    "池化容量占比，有池化时至少 0.002；没有池化但都有双控时取 0.001；未全部双控或分布式时不超过 0.89",
    "the pooled share of capacity, at least 0.002 when any is; 0.001 when none is but all have two controllers; at most 0.89 unless all have two or are distributed",
    {"size": None, "virtualised": "higher", "dual": "higher", "distributed": "higher", "synchronous": "higher"},
    "higher",
)
def take_pooled_share(rows: Sequence[Row]) -> float | None:
    """Capacity in virtualised, distributed or synchronously written pools; a pool of unknown size decides at worst."""
    if not rows:
        return None
    pooled = [any(row.number(kind) >= 1 for kind in ("virtualised", "distributed", "synchronous")) for row in rows]
    is_redundant = all(row.number("dual") >= 1 or row.number("distributed") >= 1 for row in rows)
    unknown = [is_pooled for row, is_pooled in zip(rows, pooled, strict=True) if row.values["size"] is None]
    sizes = [(row.values["size"] or 0.0, is_pooled) for row, is_pooled in zip(rows, pooled, strict=True)]
    whole = math.fsum(size for size, _ in sizes)
    share = math.fsum(size for size, is_pooled in sizes if is_pooled) / whole if whole else 0.0
    if unknown:
        is_best = rows[0].is_best
        share = 1.0 if is_best and any(unknown) else share if is_best or (all(unknown) and whole) else 0.0
    if share == 0:
        return 0.001 if all(row.number("dual") >= 1 for row in rows) else 0.0
    return max(0.002, share if is_redundant else min(share, 0.89))


@_for_all(
    "tiers-level",
    "4：三层以上且含离线层；3：两层且含离线层；2：两层在线；1：一层；0：无。只计 30 天内有读写的层",
    "4: three tiers with an offline one; 3: two with an offline one; 2: two online; 1: one; 0: none; tiers used within 30 d",
    {"tier": None, "last_access_age": "lower"},
    "higher",
)
def take_tiers_level(rows: Sequence[Row]) -> float | None:
    """Which tiers were read or written; one of unknown level counts at best, as the one that is still lacking."""
    if not rows:
        return None
    used = [row for row in rows if row.number("last_access_age") <= 30 * DAY]
    levels = {tier for row in used if (tier := row.values["tier"]) is not None}
    if rows[0].is_best:
        for _ in range(sum(row.values["tier"] is None for row in used)):
            levels.add(next((level for level in (3.0, 1.0, 2.0) if level not in levels), 3.0))
    if 3.0 in levels:
        return 4.0 if len(levels) >= 3 else 3.0 if len(levels) == 2 else 1.0
    return float(min(len(levels), 2))


@_for_all(
    "share-of-sums",
    "各对象 part 之和除以 whole 之和",
    "the sum of `part` over all subjects by the sum of `whole`",
    {"part": "higher", "whole": "lower"},
    "higher",
)
def take_share_of_sums(rows: Sequence[Row]) -> float | None:
    """None when there is nothing of the whole; at most 1."""
    whole = math.fsum(row.number("whole") for row in rows)
    if whole <= 0:
        return None
    return min(1.0, math.fsum(row.number("part") for row in rows) / whole)


@_for_all(
    "events-per-thousand",
    "每千台终端的事件数；全部被自动阻断时计 0",
    "events per 1000 endpoints; 0 when every one was blocked automatically",
    {"events": "lower", "blocked": "higher", "endpoints": "higher"},
    "lower",
)
def take_events_per_thousand(rows: Sequence[Row]) -> float | None:
    """Confirmed unauthorised connections in the window, over the endpoints that the sensors watch."""
    if not rows:
        return None
    events = math.fsum(row.number("events") for row in rows)
    if math.fsum(row.number("blocked") for row in rows) >= events:
        return 0.0
    endpoints = math.fsum(row.number("endpoints") for row in rows)
    return events * 1000 / endpoints if endpoints > 0 else math.inf
