"""Ways on the wire: a protocol, its port, its family of addresses, as `tcp/22`, `udp6/161` or `icmp`."""

import ipaddress
import re
from typing import NamedTuple

from agent.language import say

ECHO = "echo"
"""What stands for the port where there is none."""

_WRITTEN = re.compile(r"(tcp|udp)/([0-9]{1,5})|icmp")
LAST_PORT = 65535


class Way(NamedTuple):
    """protocol: tcp, udp or icmp, with a 6 at its end over IPv6. port: 0 for an echo."""

    protocol: str
    port: int

    @property
    def base(self) -> str:
        """tcp, udp or icmp."""
        return self.protocol.removesuffix("6")

    @property
    def is_ipv6(self) -> bool:
        """Whether it is a way over IPv6."""
        return self.protocol.endswith("6")

    @property
    def port_tag(self) -> str:
        """The port as a tag."""
        return str(self.port) if self.port else ECHO

    def __str__(self) -> str:
        return f"{self.protocol}/{self.port}" if self.port else self.protocol


def read_way(text: str, is_ipv6: bool = False) -> Way:
    """`tcp/22`, `udp/161` or `icmp`, over one family. Raises ValueError."""
    found = _WRITTEN.fullmatch(text)
    port = int(found[2] or 0) if found else 0
    if found is None or port > LAST_PORT or (found[2] and not port):
        raise ValueError(
            say(f"'{text}' 应写成 tcp/22、udp/161 或 icmp", f"write tcp/22, udp/161 or icmp, not '{text}'")
        )
    base = found[1] or "icmp"
    return Way(f"{base}6" if is_ipv6 else base, port)


def read_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address in figures: a name could lead anywhere. Raises ValueError."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        complaint = say(f"'{text}' 应为 IP 地址，不能是域名", f"'{text}' must be an IP address, not a name")
        raise ValueError(complaint) from None
