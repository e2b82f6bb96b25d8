"""The site folder of a running collector: read again when its files change, kept as it was while an edit is broken."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.documents import FileMistakes
from agent.errors import StoreError
from agent.language import say
from collector.beside import Place, read_site
from collector.evaluate import Rules
from collector.site_check import find_retired
from collector.site_revoked import REVOKED
from collector.site_seen import Seen
from collector.site_written import DOCUMENTS

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0

Signature = tuple[tuple[str, int, int], ...]


class SiteWatch:
    """Looks once a minute whether the files of the site folder changed.

    named: the place as the command line or the configuration named it. now: the same with its site folder read; it stays
    while what lies there has mistakes, which are said once. trouble: those mistakes as long as they are there, else empty.
    """

    def __init__(self, named: Place, now: Place, rules: Rules) -> None:
        self._named, self._rules = named, rules
        self.now = now
        self._signature: Signature | None = None
        """None: an edit between the first reading and the first look must not be missed."""
        self.trouble = ""

    async def run(self, changed: Callable[[Place], None], seen: Callable[[], Awaitable[Seen]]) -> None:
        """For ever. changed: called with every new place. seen: gives what the store has seen."""
        if self._named.site_folder is None:
            return
        await self._say_retired(seen)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await asyncio.to_thread(self.look):
                changed(self.now)
                await self._say_retired(seen)

    def look(self) -> bool:
        """Read the folder when its files changed; whether it says something else now. Blocks on the disk."""
        signature = _sign(self._named.site_folder)
        if signature == self._signature:
            return False
        self._signature = signature
        try:
            read, warnings = read_site(self._named, self._rules)
        except FileMistakes as error:
            text = say(
                "站点目录有误，仍用改动之前的内容：\n%s",
                "the site folder has mistakes; what it said before holds on:\n%s",
            )
            log.error(text, error)
            self.trouble = str(error)
            return False
        new, old = read.site.folder, self.now.site.folder
        is_other = (new.digest, new.revoked) != (old.digest, old.revoked)
        if is_other or self.trouble:
            level = logging.WARNING if self.trouble else logging.INFO
            log.log(level, say("已重新读入站点目录", "the site folder was read again"))
            for warning in warnings:
                log.warning("%s", warning)
        self.trouble = ""
        self.now = read
        return is_other

    async def _say_retired(self, seen: Callable[[], Awaitable[Seen]]) -> None:
        """What reports although it left is stored, and said; the rest is `register check`'s to say."""
        try:
            found = find_retired(self.now.site.folder, await seen())
        except StoreError as error:
            log.debug("the store cannot say who reports: %s", error)
            return
        for finding in found:
            log.warning("%s", finding)


def _sign(folder: Path | None) -> Signature:
    """What changes when a file of the folder does; empty while it cannot be looked at."""
    if folder is None:
        return ()
    files = [*folder.glob("*.yaml"), *folder.glob("*.yml"), *(folder / DOCUMENTS).rglob("*"), folder / REVOKED]
    signature = []
    for path in sorted(files):
        try:
            found = path.stat()
        except OSError:  # gone between two looks: the next one sees it
            continue
        signature.append((str(path), found.st_mtime_ns, found.st_size))
    return tuple(signature)
