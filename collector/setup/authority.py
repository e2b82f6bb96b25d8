"""The site's own certificate authority; the one place that imports the cryptography library.

ECDSA on P-256 with SHA-256 throughout (RFC 5280): what OpenSSL 3 takes at its usual security level, and mosquitto 2.0 with it.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.errors import InfravitalsError
from agent.language import say

AUTHORITY_DAYS = 3650
LEAF_DAYS = 730
BACKDATED = timedelta(hours=24)
"""A machine whose clock is a little behind takes a new certificate too."""
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
"""A clock before this was never set."""


class AuthorityError(InfravitalsError):
    """A certificate or a key cannot be made or is of no use."""


class Pair(NamedTuple):
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes


class Term(NamedTuple):
    """From when until when a certificate is valid."""

    begins: datetime
    ends: datetime


def refuse_wrong_clock(now: datetime) -> None:
    """Raises AuthorityError when this machine's clock cannot be right: certificates would be valid at another time."""
    if now < EARLIEST:
        raise AuthorityError(
            say(
                f"本机时钟是 {now:%Y-%m-%d}，显然不对，签出的证书不会有效；请先校时(如 chronyc makestep)再运行",
                f"this machine's clock says {now:%Y-%m-%d}, which cannot be: no certificate made now would be valid; set it (chronyc makestep) and run again",
            )
        )


def new_key() -> bytes:
    """A private key, PEM, not enciphered: the file's mode guards it."""
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(*form)


def make_authority(key: bytes, site: str, now: datetime) -> bytes:
    """The certificate of a new authority over `key`, PEM."""
    refuse_wrong_clock(now)
    own = _key(key)
    name = _name(f"Infravitals {site} CA")
    identifier = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
    made = (
        _begun(name, name, own.public_key(), Term(now - BACKDATED, now + timedelta(days=AUTHORITY_DAYS)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return made.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def issue(authority: Pair, key: bytes, name: str, hosts: Sequence[str], now: datetime, days: int = LEAF_DAYS) -> bytes:
    """A server's certificate over `key`, PEM. hosts: names and addresses that clients dial. Raises AuthorityError."""
    refuse_wrong_clock(now)
    signer, signing = _certificate(authority.certificate), _key(authority.key)
    refuse_unfit_authority(authority, now)
    own = _key(key).public_key()
    whole = term_of(authority.certificate)  # nobody trusts a leaf outside its authority's term
    term = Term(max(now - BACKDATED, whole.begins), min(now + timedelta(days=days), whole.ends))
    made = (
        _begun(_name(name), signer.subject, own, term)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    return made.sign(signing, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def refuse_unfit_authority(authority: Pair, now: datetime) -> None:
    """Raises AuthorityError for an authority that is not one pair, has ended, or has not begun by this clock."""
    if not is_pair(authority):
        raise AuthorityError(
            say(
                "CA 的证书与私钥不配套；请从备份放回 ca/ca.pem 与 ca/ca.key",
                "the authority's certificate and key are not of one pair; put ca/ca.pem and ca/ca.key back from a backup",
            )
        )
    term = term_of(authority.certificate)
    if now < term.begins:
        raise AuthorityError(
            say(
                f"本机时钟是 {now:%Y-%m-%d %H:%M}，早于 CA 的生效时间 {term.begins:%Y-%m-%d %H:%M}；请先校时再运行",
                f"this machine's clock says {now:%Y-%m-%d %H:%M}, before the authority begins at {term.begins:%Y-%m-%d %H:%M}; set it and run again",
            )
        )
    if now > term.ends:
        raise AuthorityError(
            say(
                f"CA 已于 {term.ends:%Y-%m-%d} 到期，签不出有效的证书；须另建站点并给各代理换 ca.pem",
                f"the authority ended on {term.ends:%Y-%m-%d} and cannot sign any more; make the site anew and give its agents the new ca.pem",
            )
        )


def is_pair(pair: Pair) -> bool:
    """Whether certificate and key belong together. Raises AuthorityError when one cannot be read."""
    return _certificate(pair.certificate).public_key() == _key(pair.key).public_key()


def is_issued_by(certificate: bytes, authority: bytes) -> bool:
    """Whether an authority's certificate signed this one."""
    try:
        _certificate(certificate).verify_directly_issued_by(_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def refuse_no_key(key: bytes) -> None:
    """Raises AuthorityError for what is no private key of ours."""
    _key(key)


def term_of(certificate: bytes) -> Term:
    """When a certificate is valid. Raises AuthorityError."""
    read = _certificate(certificate)
    return Term(read.not_valid_before_utc, read.not_valid_after_utc)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, term: Term
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(term.begins)
        .not_valid_after(term.ends)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _certificate(text: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text)
    except ValueError as error:
        raise AuthorityError(say("这不是 PEM 证书", "this is no PEM certificate")) from error


def _key(text: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuthorityError(say("这不是未加密的 PEM 私钥", "this is no PEM key without a password")) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(say("私钥不是椭圆曲线的", "the key is none of an elliptic curve"))
    return key
