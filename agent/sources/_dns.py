"""The door to dnspython: one question to one server. Loaded only where a target asks DNS."""

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode


async def ask(address: str, port: int, name: str, timeout_seconds: float) -> bool:
    """Whether the server answers for a name: by anything but a failure or a refusal. Raises OSError."""
    try:
        query = dns.message.make_query(name, "A")
        answer = await dns.asyncquery.udp(query, address, port=port, timeout=timeout_seconds)
    except dns.exception.DNSException as error:
        raise OSError(str(error)) from error
    return answer.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
