"""The commands about a site as a whole, `site init`, `add-agent`, `renew` and their like: parsers and what they do."""

import argparse
import getpass
import shlex
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commandline import OK, TROUBLE, Parser, add_format, whole_number
from agent.language import say

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from collector.setup.placing import Placer
    from collector.setup.site import SiteMade
    from collector.site_cli import Add, Handler


def add_commands(add: "Add", no_command: "Handler") -> None:
    """`site`."""
    site = add(
        "site", no_command, "站点：从一个目录建起、加入采集代理、续签", "a site from one folder: made, joined, renewed"
    )
    site.epilog = say(
        """示例：
  infravitals site init --dir hospital --name my-hospital --host mqtt.hospital.local
  infravitals site database --dir hospital
  infravitals site add-agent his-db-1 --dir hospital
  infravitals site status --dir hospital
  infravitals site renew --dir hospital
  infravitals site remove-agent his-db-1 --dir hospital""",
        """examples:
  infravitals site init --dir hospital --name my-hospital --host mqtt.hospital.local
  infravitals site database --dir hospital
  infravitals site add-agent his-db-1 --dir hospital
  infravitals site status --dir hospital
  infravitals site renew --dir hospital
  infravitals site remove-agent his-db-1 --dir hospital""",
    )
    commands = site.add_subparsers(title=say("命令", "commands"), metavar=say("命令", "COMMAND"), required=True)

    def below(name: str, handler: "Handler", zh: str, en: str) -> Parser:
        child: Parser = commands.add_parser(name, help=say(zh, en), description=say(zh, en))
        child.set_defaults(handler=handler)
        about = say("站点的目录", "the site's folder")
        child.add_argument("--dir", type=Path, required=True, metavar=say("目录", "DIR"), help=about)
        return child

    _add_init(
        below("init", _init, "建一个站点，或接着做完；已有的不动", "make a site, or finish it; leaves what is there")
    )
    below(
        "database",
        _database,
        "建好本站点 InfluxDB 1.x 的库与用户；可重复执行",
        "make the database and users of the site's InfluxDB 1.x; may be run again",
    )
    _add_agents(below)
    renew = below(
        "renew",
        _renew,
        "为消息服务器与网页换发快到期的证书",
        "new certificates for broker and page where they end soon",
    )
    renew.add_argument("--all", action="store_true", help=say("不管何时到期都换", "all of them, whenever they end"))
    status = below(
        "status",
        _status,
        "证书还有多少天、缺什么、密码与私钥能不能用",
        "days left of certificates, what is missing, whether secrets can serve",
    )
    add_format(status, ("text", "json"))


def _add_init(init: Parser) -> None:
    name = say("名称", "NAME")
    init.add_argument("--name", type=_site_id, required=True, metavar=name, help=say("站点名称", "the site's id"))
    about = say(
        "采集代理用来连接的主机名或地址；可多次，第一个为主(默认本机名)",
        "the name or address that agents dial; may be repeated, the first is used (this host)",
    )
    init.add_argument("--host", action="append", type=_host, metavar=name, help=about)
    init.add_argument(
        "--agent",
        type=_id,
        metavar=name,
        help=say("本机的采集代理(默认本机名)", "the agent of this machine (its name)"),
    )
    init.add_argument(
        "--title", metavar=say("文字", "TEXT"), help=say("医院名称，可用中文", "the hospital's name, in any script")
    )
    init.add_argument(
        "--influxdb",
        dest="influx",
        choices=("1", "2"),
        help=say(
            "InfluxDB 的版本：1 为 Debian 的，2 为容器的(默认 1)", "InfluxDB: 1 as Debian has it, 2 in a container (1)"
        ),
    )
    init.add_argument(
        "--page-address",
        type=_host,
        metavar=say("地址", "ADDRESS"),
        help=say("网页监听的地址(默认 127.0.0.1)", "where the page listens (127.0.0.1)"),
    )
    for key, default, zh, en in (
        ("--broker-port", 8883, "消息服务器", "the broker's"),
        ("--influx-port", 8086, "InfluxDB", "InfluxDB's"),
        ("--grafana-port", 3000, "Grafana", "Grafana's"),
        ("--page-port", 8650, "网页", "the page's"),
    ):
        about = say(
            f"{zh} 的端口(默认 {default})" if zh.isascii() else f"{zh}的端口(默认 {default})", f"{en} port ({default})"
        )
        init.add_argument(key, type=whole_number(1, 65535), metavar=say("端口", "PORT"), help=about)
    add_format(init, ("text", "json"))


def _add_agents(below: "Add") -> None:
    name = say("名称", "NAME")
    new = below(
        "add-agent",
        _add,
        "给一个采集代理身份与权限，打成一个包",
        "give an agent its identity and rights, as one bundle",
    )
    new.add_argument("agent", type=_id, metavar=name, help=say("采集代理的名称", "the agent's name"))
    about = say(
        "server：采集本机(默认)；gateway：轮询设备",
        "server: measures its own machine (default); gateway: polls devices",
    )
    new.add_argument("--role", choices=("server", "gateway"), default="server", help=about)
    about = say("它存放缓存的目录(默认该系统的惯例)", "where it keeps its spool (the usual place of its system)")
    new.add_argument("--state-directory", metavar=say("目录", "DIR"), help=about)
    gone = below("remove-agent", _remove, "撤销一个采集代理", "revoke an agent")
    gone.add_argument("agent", type=_id, metavar=name, help=say("采集代理的名称", "the agent's name"))


def _init(options: argparse.Namespace) -> int:
    from collector.setup.broker_users import reload_broker
    from collector.setup.making import make_site
    from collector.setup.site import PASSWORDS

    wanted = _wanted(options)
    now = datetime.fromtimestamp(time.time(), UTC)
    placer = make_site(options.dir, wanted, options.agent or this_host(), now, lambda name: None)
    is_reloaded = PASSWORDS in placer.made and reload_broker(options.dir)
    status = TROUBLE if placer.troubles else OK
    if options.format == "json":
        from msgspec.json import encode, format

        told = {"made": placer.made, "kept": placer.kept, "told": placer.told, "troubles": placer.troubles}
        print(format(encode(told), indent=2).decode())
        return status
    _tell_made(options.dir, placer, is_reloaded=is_reloaded)
    if placer.made:
        print(next_steps(options.dir, wanted))
    return status


def _tell_made(folder: Path, placer: "Placer", *, is_reloaded: bool) -> None:
    """What `init` did; nothing is called whole while a person has to mend something."""
    for name in dict.fromkeys(placer.made):
        print(say(f"已建 {name}", f"made {name}"))
    for text in placer.told:
        print(text)
    if is_reloaded:
        print(say("消息服务器已重新加载", "the broker has been told to reload"))
    for text in placer.troubles:
        print(text, file=sys.stderr)
    if not placer.made and not placer.troubles:
        print(say(f"{folder}：站点已经是全的，什么都没有改", f"{folder}: the site is whole, nothing was changed"))


def _wanted(options: argparse.Namespace) -> "SiteMade":
    """What the command line says; what it does not say is as it was said first."""
    import msgspec

    from collector.setup.site import MADE, SiteMade, find_site

    said = {
        "site": options.name,
        "hosts": tuple(dict.fromkeys(options.host)) if options.host else None,
        **{key: getattr(options, key) for key in _SAID},
    }
    told = {key: value for key, value in said.items() if value is not None}
    if (options.dir / MADE).exists():
        return msgspec.structs.replace(find_site(options.dir), **told)
    inside = {"page_address": "0.0.0.0"} if options.influx == "2" else {}  # noqa: S104 - of a container, with password and TLS
    return SiteMade(**{"hosts": (socket.getfqdn(),), "owner": _owner(options.dir), **inside, **told})


_SAID = ("influx", "page_address", "broker_port", "influx_port", "grafana_port", "page_port", "title")
"""Options of `init` that are kept as they are said."""


def _owner(folder: Path) -> str:
    """Whose the site is: who made it, also when root runs the command again."""
    try:
        return folder.owner()
    except (OSError, KeyError):
        return getpass.getuser()


def this_host() -> str:
    """This machine's name as an agent's."""
    from collector.embedded import agent_name

    return agent_name()


def next_steps(folder: Path, made: "SiteMade") -> str:
    """What to run next, ready to be copied."""
    home = shlex.quote(str(folder))
    if made.influx == "2":
        return say(
            f"\n接下来：\n  docker compose --env-file {home}/compose.env -f deploy/compose/compose.yaml up -d\n  infravitals site add-agent 名称 --dir {home}",
            f"\nnext:\n  docker compose --env-file {home}/compose.env -f deploy/compose/compose.yaml up -d\n  infravitals site add-agent NAME --dir {home}",
        )
    from collector.setup.agents import agent_names

    agent = agent_names(folder)[0]
    commands = f"""\
  mosquitto -c {home}/mosquitto/mosquitto.conf
  influxd -config {home}/influxdb/influxdb.conf
  infravitals site database --dir {home}
  infravitals serve -c {home}/collector/collector.yaml
  infravitals-agent run -c {home}/agents/{agent}/agent.yaml"""
    scheme = f"https://{made.hosts[0] if made.page_address != '127.0.0.1' else '127.0.0.1'}:{made.page_port}/"
    return say(
        f"\n接下来，依次启动：\n{commands}\n网页 {scheme}，密码在 {home}/collector/page.password\n另加采集代理：infravitals site add-agent 名称 --dir {home}",
        f"\nnext, one after the other:\n{commands}\nthe page is {scheme}, its password is in {home}/collector/page.password\nmore agents: infravitals site add-agent NAME --dir {home}",
    )


def _database(options: argparse.Namespace) -> int:
    from collector.setup.database import make_database
    from collector.setup.site import find_site

    for done in make_database(options.dir, find_site(options.dir)):
        print(done)
    return OK


def _add(options: argparse.Namespace) -> int:
    from collector.setup.agents import add_agent
    from collector.setup.authority import refuse_wrong_clock
    from collector.setup.making import locked
    from collector.setup.placing import Placer
    from collector.setup.site import find_site

    made = find_site(options.dir)
    refuse_wrong_clock(datetime.fromtimestamp(time.time(), UTC))
    with locked(options.dir):
        bundle = add_agent(Placer(options.dir), made, options.agent, options.role, options.state_directory)
    print(say(f"已建 {bundle}", f"made {bundle}"))
    _tell_reload(options.dir)
    print(
        say(
            f"送到那台机器(用完即删)，再：\n  tar -xf {options.agent}.tar --strip-components=1 -C /etc/infravitals-agent\n  systemctl enable --now infravitals-agent",
            f"carry it to that machine (and delete it after use), then:\n  tar -xf {options.agent}.tar --strip-components=1 -C /etc/infravitals-agent\n  systemctl enable --now infravitals-agent",
        )
    )
    return OK


def _remove(options: argparse.Namespace) -> int:
    from collector.setup.agents import remove_agent
    from collector.setup.making import locked
    from collector.setup.placing import Placer
    from collector.setup.site import find_site

    made = find_site(options.dir)
    with locked(options.dir):
        remove_agent(Placer(options.dir), made, options.agent, datetime.fromtimestamp(time.time(), UTC))
    print(say(f"已撤销 {made.site}/{options.agent}", f"{made.site}/{options.agent} is revoked"))
    print(
        say(
            "诊断与网页一分钟内改称“已撤销”。它的数据留着；它看着的资产仍按缺数据计分，已退役的请在 site/register.yaml 中写上 'retired'（日期与原因）",
            "the doctor and the page call it revoked within a minute; its data stay. What it watched still counts as missing: for what has left write 'retired', its date and why, in site/register.yaml",
        )
    )
    return OK if _tell_reload(options.dir) else TROUBLE  # who was revoked may be connected still


def _renew(options: argparse.Namespace) -> int:
    from collector.setup.making import locked
    from collector.setup.placing import Placer
    from collector.setup.site import find_site
    from collector.setup.upkeep import renew

    made, now = find_site(options.dir), datetime.fromtimestamp(time.time(), UTC)
    with locked(options.dir):
        done = renew(Placer(options.dir), made, now, all_of_them=options.all)
    if not done:
        print(
            say(
                "证书都还有 60 天以上，什么都没有改",
                "every certificate has more than 60 days left, nothing was changed",
            )
        )
        return OK
    for name in done:
        print(say(f"已换发 {name}", f"renewed {name}"))
    _tell_reload(options.dir)
    print(say("网页一分钟内用上新证书", "the page takes its own up within a minute"))
    return OK


def _tell_reload(folder: Path) -> bool:
    """Have the broker read its files again, and say so; False where that is left to the reader."""
    from collector.setup.broker_users import reload_broker

    is_told = reload_broker(folder)
    if is_told:
        print(say("消息服务器已重新加载", "the broker has been told to reload"))
    else:
        text = say(
            "没有找到在运行的消息服务器；若它在别处运行，请在那里重新加载(systemctl reload infravitals-broker)，在此之前新用户进不来、撤销的还在线",
            "no running broker was found here; where it runs elsewhere, reload it there (systemctl reload infravitals-broker): until then who is new is not let in and who was revoked stays",
        )
        print(text, file=sys.stderr)
    return is_told


def _status(options: argparse.Namespace) -> int:
    from msgspec.json import encode, format

    from collector.setup.site import find_site
    from collector.setup.upkeep import examine

    findings = list(examine(options.dir, find_site(options.dir), datetime.fromtimestamp(time.time(), UTC)))
    if options.format == "json":
        print(format(encode(findings), indent=2).decode())
    else:
        signs = {"good": "✓", "due": "!", "bad": "✕"}
        for one in findings:
            print(f"{signs[one.state]} {one.what}: {one.text}")
    return TROUBLE if any(one.state == "bad" for one in findings) else OK


def _id(text: str) -> str:
    from agent.catalogue import explain_id, is_id

    if not is_id(text):
        raise argparse.ArgumentTypeError(explain_id("", text))
    return text


def _site_id(text: str) -> str:
    try:
        return _id(text)
    except argparse.ArgumentTypeError as error:
        where = say(
            f"；医院的名称写在 --title，例如 --name my-hospital --title {shlex.quote(text)}",
            f"; the hospital's own name goes to --title: --name my-hospital --title {shlex.quote(text)}",
        )
        raise argparse.ArgumentTypeError(f"{error}{where}") from error


def _host(text: str) -> str:
    from collector.config import is_host

    if not is_host(text):
        raise argparse.ArgumentTypeError(say(f"'{text}' 不是主机名或地址", f"'{text}' is no host name or address"))
    return text
