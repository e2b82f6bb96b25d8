"""What a path probe is told to probe: targets, and the lines and segments that are made of them."""

from typing import Annotated, Literal

import msgspec

from agent.broker import Secret
from agent.catalogue import explain_id, is_id
from agent.language import say
from agent.sources._requests import read_url
from agent.sources._throughput import Throughput
from agent.sources._ways import read_address
from agent.sources.isolation_responder import Port

Kind = Literal["icmp", "tcp", "http", "dns", "stream"]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is probed. address: of icmp, tcp, dns, stream. port: of tcp; 53 and 7180 where not said. url, statuses, ca: of http.

    throughput: of a stream whose far end has enrolled us: what may be sent, and when; nothing by default.
    key: of this prober and this far end alone; else the source's.
    ask: the name that DNS is asked for. service: the service that it stands for; its probe is reported as one of the service too.
    witness: the cluster whose witness or arbiter it is, whatever makes it: an array's, a database's, a hypervisor's.
    """

    name: str
    kind: Kind = "icmp"
    address: str = ""
    port: Port | None = None
    url: str = ""
    statuses: tuple[int, ...] = (200,)
    ca: str | None = None
    ask: str = ""
    service: str | None = None
    witness: str | None = None
    key: Secret | None = None
    throughput: Throughput | None = None

    def __post_init__(self) -> None:
        for key, name in (("name", self.name), ("service", self.service), ("witness", self.witness)):
            if name is not None and not is_id(name):
                raise ValueError(explain_id(key, name))
        if self.kind == "http":
            read_url(self.url)
        else:
            read_address(self.address)
        if self.kind == "tcp" and self.port is None:
            raise ValueError(say(f"'{self.name}'：tcp 须写 port", f"'{self.name}': tcp needs a port"))
        if self.throughput and self.kind != "stream":
            text = f"'{self.name}'：throughput 只用于 stream", f"'{self.name}': throughput is for a stream"
            raise ValueError(say(*text))
        if self.kind == "dns" and not self.ask:
            raise ValueError(say(f"'{self.name}'：dns 须写 ask", f"'{self.name}': dns needs a name to ask for"))


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider's way to the partner; live while any of its targets is reachable."""

    provider: str
    targets: tuple[str, ...]


class Line(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A leased or telemedicine line. fallback: targets over 4G/5G or VPN. interface: of this machine, that carries the line.

    between_sites: its routes are the links between two data sites, and count as parts that back each other up.
    """

    routes: tuple[Route, ...]
    fallback: tuple[str, ...] = ()
    interface: str | None = None
    committed_bits_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    between_sites: bool = False


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network segment. paths: one target behind each way in; gateways: each gateway's own address, as targets."""

    paths: tuple[str, ...]
    gateways: tuple[str, ...] = ()
