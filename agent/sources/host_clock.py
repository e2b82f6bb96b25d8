"""How far this host's clock is from its reference, and whether it has one.

Measures: host_clock.offset_seconds (positive: this clock is ahead of the reference), is_synchronised (to an outside
reference that is chosen right now; the own clock as reference does not count), sources_count (sources that
answer and are believed).
Needs: chrony, ntpd or systemd-timesyncd, asked by chronyc, ntpq or timedatectl, the first that answers. No rights.
Reference: chronyc(1); RFC 5905 appendix on ntpq's `rv` and `peers`; timedatectl(1).

chronyc's CSV, `tracking` (14 columns): 0 reference id, 1 its name, 2 stratum, 3 reference time, 4 system time (seconds
still to correct; positive: this clock is *slow*), 5 last offset, 6 RMS offset, 7 frequency (ppm), 8 residual
frequency, 9 skew, 10 root delay, 11 root dispersion, 12 update interval, 13 leap status.
`sources`: 0 mode, 1 state, 2 name, 3 stratum, 4 poll, 5 reach (octal), 6 last sample age, 7-9 offsets and error.
chrony goes on saying `Normal` with offset near 0 when all sources are gone, so a chosen source is asked for too.
"""

import re
from typing import Annotated, ClassVar, Literal

import msgspec

from agent.errors import NoData, SourceError
from agent.language import say
from agent.sources import Output, Reading, SourceConfig, Surroundings

Program = Literal["chrony", "ntpq", "timedatectl"]

NETWORK_DAEMONS = {"chrony", "ntpq"}
"""Whose client says for sure that its daemon does not run; timedatectl also fails where there is no system bus."""

COMMAND_SHARE = 0.4
"""Of a round's deadline, for one command: each program is asked twice at most."""

CHRONY_LOCAL_REFERENCE = "7F7F0101"
CHRONY_TRACKING_COLUMNS = 14
CHRONY_SOURCE_COLUMNS = 10
NTP_LOCAL_CLOCKS = ("127.127.1.", "LOCAL(")
NTP_PEER_COLUMNS = 10

_NTP_TABLE_RULE = re.compile(r"^=+$", re.MULTILINE)
_UNIT_SECONDS = {"min": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "μs": 1e-6, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(min|ms|us|μs|s|h|d)")


class Config(SourceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """program: ask this one only, instead of the first that answers."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=60)] = 60.0
    program: Program | None = None


class Source:
    """The clock of the host that the agent runs on."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._program = config.program
        self._command = surroundings.command
        self._timeout_seconds = config.deadline_seconds * COMMAND_SHARE

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """One reading. Raises NoData without any of the programs, SourceError when one hangs or only timedatectl is there and fails."""
        asked = {"chrony": self._ask_chrony, "ntpq": self._ask_ntpq, "timedatectl": self._ask_timedatectl}
        silent = []
        for program in [self._program] if self._program else asked:
            try:
                reading = await asked[program]()
            except NoData:
                continue
            if reading is not None:
                return [reading]
            silent.append(program)
        if not silent:
            wanted = self._program or say("chrony、ntpq 或 timedatectl", "chrony, ntpq or timedatectl")
            raise NoData(say(f"本机没有 {wanted}", f"there is no {wanted} on this machine"))
        if set(silent) & NETWORK_DAEMONS:  # installed and not running: that is a fact, not silence
            return [_reading(False, 0.0, 0)]
        raise SourceError(
            say(
                "timedatectl 没有回答，无法得知是否校时；请在宿主机上采集，或安装 chrony",
                "timedatectl gave no answer, so nobody knows whether the clock is set; gather on the host, or install chrony",
            )
        )

    async def close(self) -> None:
        """Nothing to close."""

    async def _run(self, *argv: str) -> Output:
        return await self._command(argv, self._timeout_seconds)

    async def _ask_chrony(self) -> Reading | None:
        tracking = await self._run("chronyc", "-c", "-n", "tracking")
        if tracking.status:
            return None
        sources = await self._run("chronyc", "-c", "-n", "sources")
        return read_chrony(tracking.stdout, sources.stdout)

    async def _ask_ntpq(self) -> Reading | None:
        output = await self._run("ntpq", "-n", "-c", "rv", "-c", "peers")
        # ntpq ends with 0 also when nobody answered; then there is no variable line.
        return read_ntpq(output.stdout) if "stratum=" in output.stdout else None

    async def _ask_timedatectl(self) -> Reading | None:
        shown = await self._run("timedatectl", "show", "-p", "NTPSynchronized")
        if shown.status:
            return None
        status = await self._run("timedatectl", "timesync-status")
        return read_timedatectl(shown.stdout, "" if status.status else status.stdout)


def read_chrony(tracking: str, sources: str) -> Reading:
    """What `chronyc -c -n tracking` and `sources` say. Raises SourceError when it is not their CSV."""
    columns = tracking.strip().split(",")
    rows = [line.split(",") for line in sources.splitlines()]
    if len(columns) != CHRONY_TRACKING_COLUMNS or any(len(row) < CHRONY_SOURCE_COLUMNS for row in rows):
        raise _unreadable("chronyc", tracking if len(columns) != CHRONY_TRACKING_COLUMNS else sources)
    states = [row[1] for row in rows]
    has_reference = columns[13] != "Not synchronised" and columns[0] != CHRONY_LOCAL_REFERENCE
    is_synchronised = has_reference and "*" in states
    believed = sum(state in "*+-" for state in states)
    # Positive in the CSV is slow: verified with a real chronyd whose server was told to be 0.25 s ahead.
    slow_seconds = _number(columns[4], "chronyc")
    return _reading(is_synchronised, -slow_seconds, believed)


def read_ntpq(text: str) -> Reading:
    """What `ntpq -c rv -c peers` says; its offset is the server's lead in milliseconds. Raises SourceError."""
    variables, *tables = _NTP_TABLE_RULE.split(text, maxsplit=1)
    table = tables[0] if tables else ""
    offset = re.search(r"\boffset=([-+0-9.]+)", variables)
    if offset is None:
        raise _unreadable("ntpq", text)
    peers = [(line[0], line[1:].split()) for line in table.splitlines() if len(line.split()) >= NTP_PEER_COLUMNS]
    outside = [(tally, row) for tally, row in peers if not row[0].startswith(NTP_LOCAL_CLOCKS)]
    is_chosen = any(tally in "*o" for tally, _ in outside)
    is_alarmed = re.search(r"\bleap_alarm\b|\bleap=(?:11|3)\b", variables) is not None
    believed = sum(tally in "*o+#-" for tally, _ in outside)
    return _reading(is_chosen and not is_alarmed, -_number(offset[1], "ntpq") / 1000.0, believed)


def read_timedatectl(shown: str, timesync_status: str) -> Reading:
    """What timedatectl says. An empty `timesync_status` (another service keeps the time) leaves offset and count out."""
    match = re.search(r"^NTPSynchronized=(yes|no)$", shown, re.MULTILINE)
    if match is None:
        raise _unreadable("timedatectl", shown)
    is_synchronised = match[1] == "yes"
    offset = re.search(r"^\s*Offset: ([-+]?)(.+)$", timesync_status, re.MULTILINE)
    if offset is None:
        return Reading("host_clock", {"is_synchronised": is_synchronised})
    spans = _SPAN.findall(offset[2])
    if not spans:
        raise _unreadable("timedatectl", offset[0])
    server_lead_seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in spans)
    ahead_seconds = server_lead_seconds if offset[1] == "-" else -server_lead_seconds
    return _reading(is_synchronised, ahead_seconds, 1 if is_synchronised else 0)


def _reading(is_synchronised: bool, offset_seconds: float, sources_count: int) -> Reading:
    """Without a reference there is nothing to be off from."""
    fields: dict[str, float | bool] = {"is_synchronised": is_synchronised, "sources_count": float(sources_count)}
    if is_synchronised:
        fields["offset_seconds"] = offset_seconds
    return Reading("host_clock", fields)


def _number(text: str, program: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _unreadable(program, text) from error


def _unreadable(program: str, text: str) -> SourceError:
    found = text.strip()[:60]
    return SourceError(
        say(f"看不懂 {program} 的回答：{found!r}", f"cannot make sense of what {program} answered: {found!r}")
    )
