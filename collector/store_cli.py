"""The commands about the store itself, `store init` and `store copy`: parsers and what they do."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commandline import OK, Parser
from agent.errors import WrongCall
from agent.foreign_words import explain
from agent.language import say
from collector.store_copy_cli import add_copy

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from collector.site_cli import Add, Handler


def add_commands(add: "Add", no_command: "Handler") -> None:
    """`store`."""
    store = add("store", no_command, "存储：建库、复制", "the store: set it up, copy it")
    store.epilog = say(
        """示例：
  infravitals store init -c collector.yaml
  infravitals store init -c collector.yaml --admin-user admin --admin-password-file /root/influx-admin
  infravitals store copy --from duckdb.yaml --to influxdb.yaml""",
        """examples:
  infravitals store init -c collector.yaml
  infravitals store init -c collector.yaml --admin-user admin --admin-password-file /root/influx-admin
  infravitals store copy --from duckdb.yaml --to influxdb.yaml""",
    )
    commands = store.add_subparsers(title=say("命令", "commands"), metavar=say("命令", "COMMAND"), required=True)
    about = say(
        "建好存储所需的库与权限，已有的不动；可重复执行",
        "make the database and the rights that the store needs; leaves what is there, may be run again",
    )
    init: Parser = commands.add_parser("init", help=about, description=about)
    init.set_defaults(handler=_init)
    _add_init(init)
    add_copy(commands)


def _add_init(init: Parser) -> None:
    file, name = say("文件", "FILE"), say("名称", "NAME")
    init.add_argument("-c", "--config", type=Path, required=True, metavar=file, help=say("配置文件", "collector.yaml"))
    init.add_argument(
        "--admin-user", metavar=name, help=say("可建库的用户(1.x)", "a user who may make databases (1.x)")
    )
    for key, zh, en in (
        ("--admin-password-file", "该用户密码所在文件(1.x)", "the file with that user's password (1.x)"),
        ("--admin-token-file", "可建桶的令牌所在文件(2.x)", "the file with a token that may make buckets (2.x)"),
    ):
        init.add_argument(key, type=Path, metavar=file, help=say(zh, en))


def _init(options: argparse.Namespace) -> int:
    from collector.beside import place_of
    from collector.config import read_config

    config = read_config(options.config)
    if config.store.kind == "influxdb":
        from collector.stores._influx_setup import Admin
        from collector.stores.influxdb import set_up

        password, token = _read(options.admin_password_file), _read(options.admin_token_file)
        admin = Admin(options.admin_user, password, token) if options.admin_user or token else None
        for done in set_up(config.store.config, admin):
            print(done, file=sys.stdout)
        return OK
    place = place_of(config)
    place.data_directory.mkdir(parents=True, exist_ok=True)
    with place.store():
        print(say(f"{place.data_directory}：可用", f"{place.data_directory}: ready"))
    return OK


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        text = say(f"无法读取 {path}：{explain(error)}", f"cannot read {path}: {explain(error)}")
        raise WrongCall(text) from error
