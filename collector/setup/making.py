"""`site init`: makes what is missing of a site, one whole file after the other, and leaves what is there."""

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

import msgspec

from agent.language import say
from collector.page_password import hash_password
from collector.setup import site as at
from collector.setup import written
from collector.setup.agents import add_agent, agent_names, read_passwords
from collector.setup.authority import (
    AuthorityError,
    Pair,
    is_issued_by,
    is_pair,
    issue,
    make_authority,
    new_key,
    refuse_wrong_clock,
)
from collector.setup.broker_files import examine_broker_files
from collector.setup.broker_users import mend_users, new_secret, read_secret
from collector.setup.left_out import fill_in, is_wanting, leave_hashes_out
from collector.setup.pems import check_certificate, check_key
from collector.setup.placing import PART, Placer, as_text, unwritable
from collector.setup.site import NoSite, SiteMade, find_site
from collector.site_edit import LOCK, hold_lock


def make_site(folder: Path, wanted: SiteMade, agent: str, now: datetime, notice: Callable[[str], None]) -> Placer:
    """Make or finish the site in `folder`; what was made and what was kept stands in the placer that it gives.

    agent: the first agent, on the collector's own machine. Raises NoSite for a folder that holds another site or something
    else, CannotPlace for a disk that takes nothing, AuthorityError for a clock that cannot be right, UnfitSecret for a kept secret that
    is none.
    """
    refuse_wrong_clock(now)
    placer = Placer(folder, notice)
    placer.make_folder(folder)
    with locked(folder):
        refuse_foreign(folder, wanted)
        placer.sweep()
        placer.keep_or_make(at.MADE, lambda: msgspec.json.format(msgspec.json.encode(wanted)) + b"\n")
        authority = _make_authority(placer, wanted, now)
        for certificate, key in ((at.BROKER, at.BROKER_KEY), (at.PAGE, at.PAGE_KEY)):
            make_leaf(placer, authority, certificate, key, wanted, now)
        _make_secrets(placer, wanted)
        _make_broker(placer, wanted)
        _make_collector(placer, wanted)
        _make_database(placer, wanted, agent)
        if not agent_names(folder):
            add_agent(placer, wanted, agent, here=f"../../{wanted.data}/agents/{agent}")
    return placer


def refuse_foreign(folder: Path, wanted: SiteMade) -> None:
    """Raises NoSite unless the folder is empty or holds this very site."""
    if (folder / at.MADE).exists():
        found = find_site(folder)
        if found != wanted:
            raise NoSite(_explain_other(folder, found, wanted))
        return
    there = sorted(one.name for one in folder.iterdir() if one.name != LOCK and not one.name.startswith(PART))
    if there:
        shown = ", ".join(there[:3])
        raise NoSite(
            say(
                f"{folder} 不是空的(有 {shown})，也不是本程序建的站点；请换一个目录",
                f"{folder} is not empty (it has {shown}) and no site that this program made; choose another folder",
            )
        )


def _explain_other(folder: Path, found: SiteMade, wanted: SiteMade) -> str:
    ours, theirs = msgspec.to_builtins(wanted), msgspec.to_builtins(found)
    told = "; ".join(
        f"{_OPTIONS.get(key, f'--{key}'.replace('_', '-'))} {_spell(theirs[key])} ≠ {_spell(ours[key])}"
        for key in ours
        if ours[key] != theirs[key]
    )
    return say(
        f"{folder} 中已有站点 '{found.site}'，与所说的不同({told})；请照原样运行，或换一个目录",
        f"there is a site '{found.site}' in {folder} already, and it is not as told now ({told}); say it as before, or choose another folder",
    )


_OPTIONS = {"site": "--name", "hosts": "--host", "influx": "--influxdb"}
"""Where the option of `site init` is not named like what it says."""


def _spell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value) or "-"


def _make_authority(placer: Placer, made: SiteMade, now: datetime) -> Pair:
    if (placer.folder / at.AUTHORITY).exists() and not (placer.folder / at.AUTHORITY_KEY).exists():
        raise AuthorityError(  # agents trust that certificate: another key would sign what none of them accepts
            say(
                f"有 CA 证书而缺私钥 {placer.folder / at.AUTHORITY_KEY}；请从备份放回(infravitals restore)，没有备份须另建站点并给各代理换 ca.pem",
                f"the authority has its certificate and not its key {placer.folder / at.AUTHORITY_KEY}; put it back from a backup (infravitals restore), or make another site and give every agent its ca.pem",
            )
        )
    key = placer.keep_or_make(at.AUTHORITY_KEY, new_key)
    check_key(placer.folder, at.AUTHORITY_KEY, key)
    certificate = placer.keep_or_make(at.AUTHORITY, lambda: make_authority(key, made.site, now), 0o644)
    return Pair(check_certificate(placer.folder, at.AUTHORITY, certificate), key)


def make_leaf(placer: Placer, authority: Pair, certificate: str, key: str, made: SiteMade, now: datetime) -> None:
    """A server's key and its certificate, where they are not there; one that is of another key or authority is made anew."""
    own = check_key(placer.folder, key, placer.keep_or_make(key, new_key))

    def fresh() -> bytes:
        return issue(authority, own, made.hosts[0], made.certified, now)

    found = check_certificate(placer.folder, certificate, placer.keep_or_make(certificate, fresh, 0o644))
    if not is_pair(Pair(found, own)) or not is_issued_by(found, authority.certificate):
        placer.put(certificate, fresh(), 0o644)


def _make_secrets(placer: Placer, made: SiteMade) -> None:
    for name in made.secrets:
        if name != at.PAGE_PASSWORD:
            placer.keep_or_make(name, lambda: f"{new_secret()}\n".encode())
            read_secret(placer.folder / name)


def _make_broker(placer: Placer, made: SiteMade) -> None:
    folder = placer.folder
    placer.keep_or_make(at.BROKER_CONF, lambda: written.broker_configuration(folder, made).encode(), 0o644)
    placer.keep_or_make(at.RIGHTS, lambda: written.broker_rights(made).encode())
    _make_users(placer, made)
    for one in examine_broker_files(folder, made):
        if one.state != "good":
            (placer.told if one.state == "due" else placer.troubles).append(f"{one.what}{say('：', ': ')}{one.text}")


def _make_users(placer: Placer, made: SiteMade) -> None:
    """The collector and every agent that the site has may log in, also after the password file was lost or damaged."""
    of_agents, troubles = read_passwords(placer.folder, made)
    placer.troubles += troubles
    collector = read_secret(placer.folder / at.COLLECTOR_PASSWORD)
    changed = mend_users(placer, {"collector": collector, **of_agents})
    if of_agents and changed:
        placer.told.append(
            say(
                f"{at.PASSWORDS}：按保存的密码重新写入了 {len(changed)} 个用户：{'、'.join(changed)}",
                f"{at.PASSWORDS}: {len(changed)} users were given their kept passwords again: {', '.join(changed)}",
            )
        )


def _make_collector(placer: Placer, made: SiteMade) -> None:
    """The configuration before the page's password: killed in between, the next run makes another password and its hash."""
    path = placer.folder / at.PAGE_PASSWORD
    is_new = not path.exists()
    password = new_secret() if is_new else read_secret(path)

    def text() -> bytes:
        return written.collector_configuration(made, _new_group(), hash_password(password)).encode()

    mend = say(
        "；请从备份放回，或删去它再运行 site init",
        "; put it back from a backup, or take it away and run site init again",
    )
    found = as_text(placer.folder / at.COLLECTOR, placer.keep_or_make(at.COLLECTOR, text), mend)
    wanting = leave_hashes_out(found) if is_new else found
    if at.COLLECTOR in placer.kept and is_wanting(wanting):
        placer.put(at.COLLECTOR, fill_in(wanting, _new_group(), hash_password(password)).encode())
    placer.keep_or_make(at.PAGE_PASSWORD, lambda: f"{password}\n".encode())
    placer.keep_or_make("site/site.yaml", lambda: written.site_file(made).encode(), 0o644)
    placer.make_folder(placer.folder / made.data)


def _new_group() -> str:
    return f"infravitals-{secrets.token_hex(16)}"


def _make_database(placer: Placer, made: SiteMade, agent: str) -> None:
    folder = placer.folder
    if made.influx == "1":
        placer.keep_or_make("influxdb/influxdb.conf", lambda: written.influx_configuration(folder, made).encode())
    else:
        _make_containers(placer, made, agent)
    placer.keep_or_make("grafana/grafana.ini", lambda: written.grafana_configuration(folder, made).encode())
    source = "grafana/provisioning/datasources/infravitals.yaml"
    placer.keep_or_make(source, lambda: written.grafana_source(folder, made).encode())
    for name, text in written.grafana_pages(written.shipped_folder() / "grafana", folder):
        placer.keep_or_make(name, text.encode)


def _make_containers(placer: Placer, made: SiteMade, agent: str) -> None:
    """What the compose file reads, and the folders that its services write: made here, or they would be root's."""
    folder = placer.folder
    placer.keep_or_make("influxdb/influxdb.env", lambda: written.influx_environment().encode())
    owner = folder.stat()
    whose = f"{owner.st_uid}:{owner.st_gid}"
    placer.keep_or_make("compose.env", lambda: written.compose_environment(folder, made, agent, whose).encode())
    for name in ("collector", "grafana", "influxdb2", "influxdb2-config", f"agents/{agent}"):
        placer.make_folder(folder / made.data / name)


def locked(folder: Path) -> AbstractContextManager[None]:
    """Hold the site's lock: of two commands at once one waits."""
    return hold_lock(folder, unwritable, 0o600)
