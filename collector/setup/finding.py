"""What `site status` says of one thing of a site."""

from typing import Literal

import msgspec

State = Literal["good", "due", "bad"]


class Finding(msgspec.Struct, frozen=True):
    """One thing of a site. days_left: of a certificate, else None."""

    what: str
    state: State
    text: str
    days_left: int | None = None
