"""The command line of `infravitals-agent snmp …`: made for every command, so it loads nothing of SNMP."""

import argparse
import importlib
from functools import partial
from pathlib import Path
from typing import get_args

from agent.commandline import Parser, add_format, number, whole_number
from agent.language import say
from agent.snmp.credentials import Auth, Priv

DEFAULT_COMMUNITY = "public"
DEFAULT_LISTEN = "127.0.0.1:16100"


def add_commands(parser: Parser) -> None:
    """All commands of `snmp`."""
    commands = parser.add_subparsers(title=say("命令", "commands"), metavar=say("命令", "COMMAND"), required=True)

    def add(name: str, text: str) -> Parser:
        child: Parser = commands.add_parser(name, help=text, description=text)
        child.set_defaults(command=partial(_run, name))
        return child

    trying = add(
        "try",
        say(
            "问一台设备：适用哪些档案、得到哪些数据点、用时多少",
            "ask one device: which profiles fit, the points they give, how long",
        ),
    )
    _add_target(trying)
    trying.add_argument(
        "--profile", action="append", metavar=say("档案", "PROFILE"), help=say("只用这些档案", "these profiles only")
    )
    add_format(trying, ("table", "json"))
    walk = add(
        "walk", say("录制一台设备，抹去名称、地址、序列号", "record one device, without names, addresses, serials")
    )
    _add_target(walk)
    walk.add_argument(
        "-o", "--output", type=Path, required=True, metavar=say("文件", "FILE"), help=say("写到哪里", "where to write")
    )
    replay = add("replay", say("用录制的内容像设备一样应答", "answer as a recorded device"))
    replay.add_argument("walk", type=Path, metavar=say("录制", "WALK"))
    about = say(f"在哪里应答(默认 {DEFAULT_LISTEN})", f"where to answer ({DEFAULT_LISTEN})")
    replay.add_argument("--listen", default=DEFAULT_LISTEN, metavar="[HOST:]PORT", help=about)
    _add_credential(replay)
    profile = add("profile", say("检查设备档案", "check device profiles"))
    profile.add_argument("action", choices=("check",))
    profile.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar=say("文件", "FILE"),
        help=say("不写则检查自带的", "the shipped ones unless given"),
    )
    discover = add(
        "discover",
        say(
            "在配置允许的地址段内查找应答 SNMP 的设备，写出登记初稿",
            "find what answers SNMP in the allowed ranges; writes a register draft",
        ),
    )
    discover.add_argument(
        "ranges",
        nargs="*",
        metavar=say("地址段", "RANGE"),
        help=say("不写则为全部允许的", "all allowed ones unless given"),
    )
    discover.add_argument(
        "-c",
        "--config",
        type=Path,
        required=True,
        metavar=say("文件", "FILE"),
        help=say("配置文件 agent.yaml", "the configuration agent.yaml"),
    )
    discover.add_argument(
        "--port",
        type=whole_number(1, 65535),
        metavar=say("端口", "PORT"),
        action="append",
        help=say(
            "可多次给出；不写则为 161 与配置中各目标的端口",
            "may be given several times; by default 161 and the ports of the configured targets",
        ),
    )
    discover.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar=say("文件", "FILE"),
        help=say("登记初稿写到哪里；不写则打印", "where the draft goes; printed unless given"),
    )
    add_format(discover, ("text", "json"))


def _add_target(parser: Parser) -> None:
    parser.add_argument(
        "target",
        nargs="?",
        metavar="HOST[:PORT]",
        help=say(
            "地址，端口缺省 161；与 -c 同用时可为资产名，只有一个目标时可不写",
            "an address, port 161 unless given; with -c the name of an asset, or nothing where there is one target only",
        ),
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar=say("文件", "FILE"),
        help=say("从 agent.yaml 取地址与凭据", "take address and credential from agent.yaml"),
    )
    parser.add_argument(
        "--timeout",
        type=number(0.05, 60),
        default=1.0,
        metavar=say("秒", "SECONDS"),
        help=say("第一次等多久，之后每次加倍(默认 1)", "how long the first attempt waits, doubled each time (1)"),
    )
    parser.add_argument(
        "--retries",
        type=whole_number(0, 10),
        default=2,
        metavar=say("次数", "N"),
        help=say("再试几次(默认 2)", "further attempts (2)"),
    )
    _add_credential(parser)


def _add_credential(parser: Parser) -> None:
    parser.add_argument(
        "--community",
        metavar="C",
        help=say(f"团体字，缺省 {DEFAULT_COMMUNITY}(会说明)", f"{DEFAULT_COMMUNITY} unless given, and said so"),
    )
    parser.add_argument("--v1", action="store_true", help=say("用版本 1", "speak version 1"))
    parser.add_argument("--v3", metavar=say("用户", "USER"), help=say("用版本 3", "speak version 3"))
    parser.add_argument("--auth", choices=get_args(Auth))
    parser.add_argument(
        "--auth-password", type=Path, metavar=say("文件", "FILE"), help=say("密码所在的文件", "the file that holds it")
    )
    parser.add_argument("--priv", choices=get_args(Priv))
    parser.add_argument(
        "--priv-password", type=Path, metavar=say("文件", "FILE"), help=say("密码所在的文件", "the file that holds it")
    )


def _run(name: str, parsed: argparse.Namespace) -> int:
    """Run a command by its function in `commands`, which loads what it needs."""
    commands = importlib.import_module("agent.snmp.commands")
    status: int = commands.COMMANDS[name](parsed)
    return status
