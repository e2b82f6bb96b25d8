"""Agents of a site: one folder each, ready to be carried away as one file, and their rights at the broker."""

import io
import tarfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from agent.documents import FileMistakes, Mistake
from agent.errors import InfravitalsError, WrongCall
from agent.language import say
from collector.setup import site as at
from collector.setup import written
from collector.setup.broker_users import explain_remaking, let_in, new_secret, read_lines, read_secret, shut_out
from collector.setup.pems import read_certificate
from collector.setup.placing import Placer
from collector.setup.site import SiteMade
from collector.site_revoked import REVOKED, read_revoked, spell_revoked

AGENTS = "agents"
SITE_FOLDER = "site"
PASSWORD = "credentials/broker-password"  # noqa: S105 - the name of a file
MODES = {"agent.yaml": 0o644, "ca.pem": 0o644, PASSWORD: 0o600}
"""What an agent is given, and how it lies on the agent's machine."""


class NameInUse(WrongCall):
    """There is an agent of this name."""


class NoSuchAgent(WrongCall):
    """There is no agent of this name."""


def agent_names(folder: Path) -> list[str]:
    """The agents of a site that are whole, by name."""
    return sorted(path.stem for path in (folder / AGENTS).glob("*.tar"))


def add_agent(
    placer: Placer,
    made: SiteMade,
    name: str,
    role: str = "server",
    state_directory: str | None = None,
    here: str | None = None,
) -> Path:
    """Make an agent's folder, its bundle and its rights; gives the bundle. Raises NameInUse, UnusablePasswords or FileMistakes.

    One that a kill left half-made is finished. role: of `written.SOURCES`. state_directory: where it keeps its spool, None for the system's usual place;
    here: the same for one that is run from the folder itself, not from the bundle.
    """
    bundle = f"{AGENTS}/{name}.tar"
    if (placer.folder / bundle).exists():
        raise NameInUse(
            say(
                f"采集代理 '{name}' 已经有了，见 {placer.folder / bundle}；要重新发给它，请先 site remove-agent {name}",
                f"there is an agent '{name}' already, see {placer.folder / bundle}; to make it anew, site remove-agent {name} first",
            )
        )
    revoked = _revoked(placer)
    read_lines(placer.folder)  # refuses before anything is made
    home = f"{AGENTS}/{name}"
    authority = read_certificate(placer.folder, at.AUTHORITY)
    password = placer.keep_or_make(f"{home}/{PASSWORD}", lambda: f"{new_secret()}\n".encode())
    carried = written.agent_configuration(made, name, role, state_directory).encode()
    own = written.agent_configuration(made, name, role, here).encode() if here else carried
    kept = placer.keep_or_make(f"{home}/agent.yaml", lambda: own)
    texts = {
        "agent.yaml": carried if here else kept,
        "ca.pem": placer.keep_or_make(f"{home}/ca.pem", lambda: authority, 0o644),
        PASSWORD: password,
    }
    let_in(placer, f"{made.site}/{name}", read_secret(placer.folder / home / PASSWORD))
    if name in revoked:
        _note_revoked(placer, {agent: at for agent, at in revoked.items() if agent != name})
    placer.put(bundle, pack(name, texts))  # last: it says that the agent is whole
    return placer.folder / bundle


def remove_agent(placer: Placer, made: SiteMade, name: str, now: datetime) -> None:
    """Take an agent's rights and folder away, and note it where the collector looks.

    Raises NoSuchAgent, UnusablePasswords or FileMistakes.
    """
    revoked = _revoked(placer)
    user = f"{made.site}/{name}"
    is_known = any(line.startswith(f"{user}:") for line in read_lines(placer.folder))
    if not is_known and not (placer.folder / AGENTS / name).is_dir():
        there = agent_names(placer.folder)
        raise NoSuchAgent(
            say(
                f"没有采集代理 '{name}'，有的是：{'、'.join(there) or '无'}",
                f"there is no agent '{name}'; there are: {', '.join(there) or 'none'}",
            )
        )
    placer.remove(f"{AGENTS}/{name}/{PASSWORD}")  # first: after a kill `site init` lets nobody in again without it
    shut_out(placer, user)
    _note_revoked(placer, {**revoked, name: int(now.timestamp() * 1000)})
    placer.remove(f"{AGENTS}/{name}.tar")
    placer.remove(f"{AGENTS}/{name}")


def _revoked(placer: Placer) -> Mapping[str, int]:
    """Who was revoked so far, as the collector knows it. Raises FileMistakes."""
    mistakes: list[Mistake] = []
    known = read_revoked(placer.folder / SITE_FOLDER, mistakes)
    if mistakes:
        raise FileMistakes(mistakes)
    return known


def _note_revoked(placer: Placer, revoked: Mapping[str, int]) -> None:
    placer.put(f"{SITE_FOLDER}/{REVOKED}", spell_revoked(revoked).encode(), 0o644)


def read_passwords(folder: Path, made: SiteMade) -> tuple[dict[str, str], list[str]]:
    """The passwords of all agents of a site by user, then a sentence for each that cannot be had."""
    kept = {path.parent.parent.name for path in (folder / AGENTS).glob(f"*/{PASSWORD}")}
    found, troubles = {}, []
    for name in sorted({*kept, *agent_names(folder)}):
        path = folder / AGENTS / name / PASSWORD
        try:
            found[f"{made.site}/{name}"] = read_secret(path)
        except InfravitalsError as error:
            troubles.append(str(error) if path.exists() else f"{error}{explain_remaking(str(path))}")
    return found, troubles


def pack(name: str, texts: dict[str, bytes]) -> bytes:
    """A tar archive of one folder `name`, owned by root, the password readable by it alone."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for folder, mode in ((name, 0o755), (f"{name}/credentials", 0o700)):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, mode
            archive.addfile(member)
        for path, content in texts.items():
            member = tarfile.TarInfo(f"{name}/{path}")
            member.size, member.mode = len(content), MODES[path]
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()
