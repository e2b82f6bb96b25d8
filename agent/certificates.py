"""Until when certificates are valid: those in PEM files, and the one that a broker shows. Nothing is verified here."""

import re
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from agent.broker import Broker
from agent.errors import LinkError
from agent.foreign_words import explain_system
from agent.language import say
from agent.mqtt_trouble import explain_dialling

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


class Certificate(NamedTuple):
    """role: broker, ca or client. expires_at: seconds since the epoch."""

    role: str
    expires_at: float


def certificates_of(broker: Broker) -> Iterator[Certificate]:
    """All that the link to a broker rests on; the soonest of a file. Raises LinkError when one cannot be had."""
    if broker.tls is None:
        return
    for role, path in (("ca", broker.tls.ca), ("client", broker.tls.certificate)):
        if path is not None:
            yield Certificate(role, read_expiry(path))
    yield Certificate("broker", ask_expiry(broker))


def read_expiry(path: str) -> float:
    """When the soonest certificate of a PEM file ends, seconds since the epoch. Raises LinkError."""
    try:
        found = [
            _expiry(ssl.PEM_cert_to_DER_cert(text)) for text in _PEM.findall(Path(path).read_text("ascii", "replace"))
        ]
        return min(found)
    except (OSError, ValueError, IndexError) as error:
        why = (explain_system(error) if isinstance(error, OSError) else None) or say(
            "不是 PEM 证书", "no PEM certificate"
        )
        text = say(f"无法读取证书 {path}：{why}", f"cannot read the certificate {path}: {why}")
        raise LinkError(text) from error


def ask_expiry(broker: Broker) -> float:
    """When the certificate that a broker shows ends, seconds since the epoch. Raises LinkError."""
    host, _, port = broker.where.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # its date is wanted also when it cannot be trusted
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, int(port)), broker.connect_timeout_seconds) as raw,
            context.wrap_socket(raw, server_hostname=host) as connection,
        ):
            shown = connection.getpeercert(binary_form=True)
        return _expiry(shown or b"")
    except OSError as error:
        why = explain_dialling(error, broker.host, True)
        text = say(f"看不到 {broker.where} 的证书：{why}", f"cannot see the certificate of {broker.where}: {why}")
        raise LinkError(text) from error
    except (ValueError, IndexError) as error:
        raise LinkError(
            say(f"{broker.where} 的证书无法读懂", f"{broker.where} shows no readable certificate")
        ) from error


def _expiry(der: bytes) -> float:
    """notAfter of an X.509 certificate (RFC 5280, 4.1). Raises ValueError or IndexError for what is none."""
    tag, certificate, _ = _element(der)
    if tag != _SEQUENCE:
        raise ValueError("no certificate")
    _, signed, _ = _element(certificate)
    tag, _, rest = _element(signed)
    if tag == _VERSION:
        _, _, rest = _element(rest)  # the serial number
    for _ in ("signature", "issuer"):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    form = (
        {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}[tag]
        if tag in (_UTC_TIME, _GENERALIZED_TIME)
        else ""
    )
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The first DER element: its tag, its content, and what follows it."""
    tag, length, at = data[0], data[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if at + length > len(data):
        raise ValueError("cut off")
    return tag, data[at : at + length], data[at + length :]
