"""`site renew` and `site status`: fresh certificates in place of those that end soon, and what a site lacks."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from agent.broker import Secret
from agent.errors import InfravitalsError
from agent.language import say
from agent.secret_check import explain_open, explain_writing, find_troubles
from collector.config import CollectorConfig, read_config
from collector.setup import site as at
from collector.setup.agents import AGENTS, PASSWORD, agent_names
from collector.setup.authority import (
    AuthorityError,
    Pair,
    is_issued_by,
    is_pair,
    issue,
    new_key,
    refuse_unfit_authority,
    term_of,
)
from collector.setup.broker_files import examine_broker_files
from collector.setup.broker_users import explain_remaking, find_users, is_password_of
from collector.setup.finding import Finding, State
from collector.setup.pems import read_pair
from collector.setup.placing import CannotPlace, Placer, read_text
from collector.setup.site import SiteMade

RENEWED_BEFORE = timedelta(days=60)
"""What ends sooner is made anew by `renew`, and told by `status`."""


def renew(placer: Placer, made: SiteMade, now: datetime, *, all_of_them: bool) -> list[str]:
    """Give new keys and certificates to the broker and the page where they end soon; gives the files. Raises AuthorityError."""
    folder = placer.folder
    authority = read_pair(folder, at.AUTHORITY, at.AUTHORITY_KEY)
    refuse_unfit_authority(authority, now)
    done = []
    for certificate, key in ((at.BROKER, at.BROKER_KEY), (at.PAGE, at.PAGE_KEY)):
        if all_of_them or not _is_lasting(folder, certificate, key, authority, now):
            fresh = new_key()
            issued = issue(authority, fresh, made.hosts[0], made.certified, now)
            placer.put(key, fresh)
            placer.put(certificate, issued, 0o644)
            done.append(certificate)
    return done


def _is_lasting(folder: Path, certificate: str, key: str, authority: Pair, now: datetime) -> bool:
    try:
        pair = read_pair(folder, certificate, key)
        is_ours = is_pair(pair) and is_issued_by(pair.certificate, authority.certificate)
        return is_ours and term_of(pair.certificate).ends - now > RENEWED_BEFORE
    except (CannotPlace, AuthorityError):
        return False


def examine(folder: Path, made: SiteMade, now: datetime) -> Iterator[Finding]:
    """Everything about a site that can be told from its folder."""
    for name, key in ((at.AUTHORITY, at.AUTHORITY_KEY), (at.BROKER, at.BROKER_KEY), (at.PAGE, at.PAGE_KEY)):
        yield _certificate(folder, name, key, now)
    yield from _configuration(folder, made)
    yield from examine_broker_files(folder, made)
    found = find_users(folder)
    if found.trouble:
        yield Finding(at.PASSWORDS, "bad", found.trouble)
    yield _user(folder, "collector", at.COLLECTOR_PASSWORD, found.lines)
    for name in agent_names(folder):
        yield _user(folder, f"{made.site}/{name}", f"{AGENTS}/{name}/{PASSWORD}", found.lines)
    for name in _unfinished(folder):
        text = say(f"没有做完；再运行 site add-agent {name}", f"half-made; run site add-agent {name} again")
        yield Finding(name, "bad", text)
    for user in _strangers(folder, made, found.lines):
        text = say("消息服务器认识它，站点里却没有它的文件夹", "known to the broker, without a folder in the site")
        yield Finding(user, "bad", text)


def _certificate(folder: Path, name: str, key: str, now: datetime) -> Finding:
    try:
        pair = read_pair(folder, name, key)
        term = term_of(pair.certificate)
        if not is_pair(pair):
            return Finding(name, "bad", _explain_strangers(name))
        if text := explain_open(folder / key):
            return Finding(name, "bad", text)
    except InfravitalsError as error:
        return Finding(name, "bad", str(error))
    days = (term.ends - now).days
    if now < term.begins:
        text = say(
            f"{term.begins:%Y-%m-%d %H:%M} 起才有效：时钟不对？",
            f"begins at {term.begins:%Y-%m-%d %H:%M}: is the clock wrong?",
        )
        return Finding(name, "bad", text, days)
    if now > term.ends:
        return Finding(name, "bad", say(f"已于 {term.ends:%Y-%m-%d} 到期", f"ended on {term.ends:%Y-%m-%d}"), days)
    state: State = "due" if term.ends - now <= RENEWED_BEFORE else "good"
    more = say("；请运行 site renew", "; run site renew") if state == "due" and name != at.AUTHORITY else ""
    return Finding(name, state, say(f"还有 {days} 天到期", f"{days} days left") + more, days)


def _explain_strangers(name: str) -> str:
    if name == at.AUTHORITY:
        return say(
            "证书与私钥不配套；请从备份放回这两个文件",
            "certificate and key are not of one pair; put both back from a backup",
        )
    return say("证书与私钥不配套；请运行 site renew", "certificate and key are not of one pair; run site renew")


def _configuration(folder: Path, made: SiteMade) -> Iterator[Finding]:
    config = None
    try:
        config = read_config(folder / at.COLLECTOR)
    except InfravitalsError as error:
        yield Finding(at.COLLECTOR, "bad", str(error).splitlines()[0])
    else:
        yield Finding(at.COLLECTOR, "good", say("没有问题", "in order"))
    yield from _secrets(folder, made, config)


def _secrets(folder: Path, made: SiteMade, config: CollectorConfig | None) -> Iterator[Finding]:
    """What the site was made with, and what `check` looks at beside it; the collector's own is told with its user."""
    ours = {str(folder / name): name for name in made.secrets}
    looked_at = [(name, Secret(file=path), explain_remaking) for path, name in ours.items()]
    if config is not None:
        looked_at += [(key, one, explain_writing) for key, one in config.secrets() if one.file not in ours]
    found = [
        Finding(what, "bad", text)
        for what, secret, mend in looked_at
        if what != at.COLLECTOR_PASSWORD
        for text in find_troubles(secret, mend=mend)
    ]
    well = say(f"{len(looked_at)} 份都在，不是谁都能读", f"{len(looked_at)}, all there, none open to everybody")
    yield from found or [Finding("secrets", "good", well)]


def _user(folder: Path, user: str, secret: str, lines: list[str]) -> Finding:
    path = folder / secret
    for text in find_troubles(Secret(file=str(path)), mend=explain_remaking):
        return Finding(user, "bad", text)
    password = read_text(path).strip()
    if any(line.startswith(f"{user}:") and is_password_of(line, password) for line in lines):
        return Finding(user, "good", say("可登录消息服务器", "may log in to the broker"))
    return Finding(
        user,
        "bad",
        say("消息服务器不认识它的密码；再运行 site init", "the broker does not know its password; run site init again"),
    )


def _unfinished(folder: Path) -> list[str]:
    there = {path.name for path in (folder / AGENTS).glob("*") if path.is_dir()}
    return sorted(there - set(agent_names(folder)))


def _strangers(folder: Path, made: SiteMade, lines: list[str]) -> list[str]:
    known = {"collector", *(f"{made.site}/{name}" for name in [*agent_names(folder), *_unfinished(folder)])}
    users = [line.partition(":")[0] for line in lines if line.strip() and not line.startswith("#")]
    return [user for user in users if user not in known and not user.startswith("collector-")]
