"""The password of the page as the configuration keeps it: scrypt (RFC 7914), slow on purpose, 16 MiB a try."""

import base64
import hashlib
import re
import secrets

COST_LOG2, BLOCK, PARALLEL = 14, 8, 1
LONGEST_PASSWORD = 1024
_FORM = re.compile(r"scrypt\$(\d{1,2})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9+/=]{16,64})\$([A-Za-z0-9+/=]{40,100})")
_MOST_BYTES = 64 * 1024 * 1024


def hash_password(password: str) -> str:
    """What the configuration keeps of a password."""
    salt = secrets.token_bytes(16)
    digest = _scrypt(password, salt, COST_LOG2, BLOCK, PARALLEL)
    return (
        f"scrypt${COST_LOG2}${BLOCK}${PARALLEL}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
    )


def is_hash(text: str) -> bool:
    """Whether a text is one that `hash_password` gives, at a cost that this machine can pay."""
    found = _FORM.fullmatch(text)
    return found is not None and 2 ** int(found[1]) * int(found[2]) * 128 * int(found[3]) <= _MOST_BYTES


def is_password(kept: str, password: str) -> bool:
    """Whether `kept` was made of this password; takes as long for a wrong one."""
    found = _FORM.fullmatch(kept)
    if found is None or len(password) > LONGEST_PASSWORD:
        return False
    cost, block, parallel = (int(found[number]) for number in (1, 2, 3))
    digest = _scrypt(password, base64.b64decode(found[4]), cost, block, parallel)
    return secrets.compare_digest(digest, base64.b64decode(found[5]))


def _scrypt(password: str, salt: bytes, cost_log2: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=2**cost_log2, r=block, p=parallel, maxmem=2 * _MOST_BYTES, dklen=32
    )
