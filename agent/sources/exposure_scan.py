"""What the internet reaches: databases first, then administration, at the hospital's own enrolled addresses.

Measures: exposure_scan.exposed_count (ports of the list that accept a connection or answer over UDP), exposed_databases_count among them,
udp_open_count, udp_refused_count, udp_silent_count (who is silent may be there all the same),
scanned_count, is_complete (every port of every address was tried, and the control was reached before and after: the scanner
itself was on the internet), exposed (which they are).
Needs: an agent outside, and an address that must be reachable from there, such as the hospital's public page.
Reference: CIS Controls 7.6; the ports are those of IANA and of the makers.

TCP connections, closed at once, and one small question per UDP service, `ports_per_second` at most; nothing but the listed
addresses is touched.
"""

import asyncio
import errno
from collections.abc import Mapping
from typing import Annotated, ClassVar

import msgspec

from agent.language import say
from agent.points import Value
from agent.sources import Reading, Seconds, Surroundings
from agent.sources._hours import ProbeConfig
from agent.sources._udp_services import SERVICES, Answered, ask_service
from agent.sources._ways import read_address
from agent.sources.isolation_probe import Pace
from agent.sources.isolation_responder import Port, read_endpoint

DATABASES: Mapping[int, str] = {
    1433: "SQL Server",
    1521: "Oracle",
    1972: "Caché/IRIS",
    2638: "Sybase",
    3050: "Firebird",
    3306: "MySQL",
    5236: "Dameng",
    5432: "PostgreSQL",
    5984: "CouchDB",
    6379: "Redis",
    7687: "Neo4j",
    8086: "InfluxDB",
    9042: "Cassandra",
    9200: "Elasticsearch",
    11211: "memcached",
    27017: "MongoDB",
    50000: "Db2",
    54321: "KingbaseES",
}
ADMINISTRATION: Mapping[int, str] = {
    21: "FTP",
    22: "SSH",
    23: "Telnet",
    111: "portmapper",
    135: "MS RPC",
    139: "NetBIOS",
    445: "SMB",
    623: "IPMI",
    873: "rsync",
    2049: "NFS",
    2375: "Docker",
    3389: "RDP",
    5900: "VNC",
    5985: "WinRM",
    6443: "Kubernetes",
    8291: "WinBox",
    10250: "kubelet",
    104: "DICOM",
    11112: "DICOM",
    2575: "HL7",
}
AWAY = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EACCES, errno.ETIMEDOUT, errno.EPROTO)
"""What a closed port may look like from here; everything else kept the connection at home."""


class Config(ProbeConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """addresses: all public addresses. control: address:port that must be reachable. more_ports: besides the known ones,
    over TCP. udp: whether services without connections are asked too.
    """

    interval_seconds: Seconds = 3600.0
    deadline_seconds: Seconds = 1800.0
    addresses: tuple[str, ...]
    control: str
    more_ports: tuple[Port, ...] = ()
    udp: bool = True
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=30)] = 3.0
    ports_per_second: Annotated[float, msgspec.Meta(gt=0, le=500)] = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.addresses:
            raise ValueError(say("addresses 至少写一个", "addresses needs one entry at least"))
        for text in self.addresses:
            read_address(text)
        read_endpoint(self.control)


class Source:
    """All enrolled addresses, from where this agent stands."""

    systems: ClassVar[tuple[str, ...]] = ("linux",)
    has_rates: ClassVar[bool] = False

    def __init__(self, config: Config, surroundings: Surroundings) -> None:
        self._config = config
        self._scanner = surroundings.asset

    async def open(self) -> None:
        """Nothing to open."""

    async def collect(self) -> list[Reading]:
        """One scan. Raises nothing that the network may do."""
        config = self._config
        ports = [*DATABASES, *ADMINISTRATION, *config.more_ports]
        places = [(address, port) for port in dict.fromkeys(ports) for address in dict.fromkeys(config.addresses)]
        pace = Pace(config.ports_per_second)
        control = read_endpoint(config.control)
        before = await self._is_open(*control, pace)
        found = await asyncio.gather(*(self._is_open(*place, pace) for place in places))
        questions = (
            [(address, port) for port in SERVICES for address in dict.fromkeys(config.addresses)] if config.udp else []
        )
        answers = await asyncio.gather(*(self._ask(*place, pace) for place in questions))
        after = await self._is_open(*control, pace)
        exposed = [place for place, is_open in zip(places, found, strict=True) if is_open]
        talking = [place for place, answer in zip(questions, answers, strict=True) if answer is Answered.OPEN]
        written = [f"{_write(address)}:{port}" for address, port in exposed]
        fields: dict[str, Value] = {
            "exposed_count": len(exposed) + len(talking),
            "exposed_databases_count": sum(port in DATABASES for _, port in exposed)
            + sum(SERVICES[port].is_database for _, port in talking),
            "scanned_count": sum(is_open is not None for is_open in found)
            + len(answers)
            - answers.count(Answered.UNSENT),
            "is_complete": bool(before and after) and None not in found and Answered.UNSENT not in answers,
            "exposed": " ".join([*written, *(f"{_write(address)}:{port}/udp" for address, port in talking)]),
        }
        if questions:
            fields |= {
                "udp_open_count": len(talking),
                "udp_refused_count": answers.count(Answered.REFUSED),
                "udp_silent_count": answers.count(Answered.SILENT),
            }
        return [Reading("exposure_scan", fields, {"scanner": self._scanner})]

    async def close(self) -> None:
        """Nothing to close."""

    async def _ask(self, address: str, port: int, pace: Pace) -> Answered:
        async with pace:
            return await ask_service(address, port, SERVICES[port], self._config.timeout_seconds)

    async def _is_open(self, address: str, port: int, pace: Pace) -> bool | None:
        """Whether it accepts a connection; None when the connection did not leave this machine."""
        async with pace:
            try:
                async with asyncio.timeout(self._config.timeout_seconds):
                    _, writer = await asyncio.open_connection(address, port)
            except TimeoutError:
                return False
            except OSError as error:
                return False if error.errno in AWAY else None
            writer.close()
            return True


def _write(address: str) -> str:
    return f"[{address}]" if ":" in address else address
