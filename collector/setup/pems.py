"""The certificates and keys of a site as they are read: what is none is one sentence that names the file and what mends it."""

from pathlib import Path

from agent.language import say
from collector.setup import site as at
from collector.setup.authority import AuthorityError, Pair, refuse_no_key, term_of
from collector.setup.placing import read_bytes


class DamagedPem(AuthorityError):
    """A file of the site holds no certificate or no key where one was written."""


def read_pair(folder: Path, certificate: str, key: str) -> Pair:
    """A certificate and its key, names of files below `folder`. Raises CannotPlace, DamagedPem."""
    return Pair(read_certificate(folder, certificate), check_key(folder, key, read_bytes(folder / key)))


def read_certificate(folder: Path, name: str) -> bytes:
    """A certificate, PEM. Raises CannotPlace, DamagedPem."""
    return check_certificate(folder, name, read_bytes(folder / name))


def check_certificate(folder: Path, name: str, content: bytes) -> bytes:
    """`content`, which the file holds, when it is a certificate. Raises DamagedPem."""
    try:
        term_of(content)
    except AuthorityError as error:
        raise DamagedPem(_explain(folder, name, error)) from error
    return content


def check_key(folder: Path, name: str, content: bytes) -> bytes:
    """`content`, which the file holds, when it is a key. Raises DamagedPem."""
    try:
        refuse_no_key(content)
    except AuthorityError as error:
        raise DamagedPem(_explain(folder, name, error)) from error
    return content


def _explain(folder: Path, name: str, error: AuthorityError) -> str:
    return f"{folder / name}{say('：', ': ')}{error}{_mend(name)}"


def _mend(name: str) -> str:
    if name in (at.AUTHORITY, at.AUTHORITY_KEY):
        return say("；请从备份放回(infravitals restore)", "; put it back from a backup (infravitals restore)")
    return say("；请运行 site renew，会换发新的", "; run site renew: a new one is made")
