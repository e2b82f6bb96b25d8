"""The command `infravitals demo`: a made-up hospital with a year behind it, and then its page."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commandline import OK, Parser, whole_number
from agent.language import say

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from collector.site_cli import Add


def add_command(add: "Add") -> None:
    """Add `demo`."""
    demo = add(
        "demo",
        _demo,
        "虚构一家医院的一年，从真实链路走过，再打开网页",
        "make up a hospital's year, send it through the real line, show it",
    )
    where = demo.add_mutually_exclusive_group()
    where.add_argument(
        "--data-dir",
        type=Path,
        default=Path("demo"),
        metavar=say("目录", "DIR"),
        help=say("放在哪里（默认 demo）", "where to keep it (demo)"),
    )
    where.add_argument(
        "-c", "--config", type=Path, metavar="collector.yaml",
        help=say("写入这份配置的存储；其 site 须以 simulated- 开头", "into the store of this configuration, whose site begins with simulated-"),
    )  # fmt: skip
    add_page_port(demo)
    demo.add_argument(
        "--days",
        type=whole_number(35, 365),
        default=365,
        metavar=say("天数", "DAYS"),
        help=say("多少天的历史（35 到 365，默认 365）", "how many days of history (35 to 365; 365)"),
    )
    demo.add_argument(
        "--once", action="store_true", help=say("做好就结束，不打开网页", "end when it is made, without a page")
    )
    demo.epilog = say(
        "示例：\n  infravitals demo                      一分钟后在 http://127.0.0.1:8650 看到一家模拟医院\n"
        "  infravitals score --data-dir demo     它现在的评分\n  infravitals history --data-dir demo   它的一年\n"
        "保留：一年的评分卡与事件；原始数据与真实站点一样只留目录规定的天数（多为 40 天），score --as-of 也只能重算到那时为止",
        "examples:\n  infravitals demo                      a minute later, a simulated hospital on http://127.0.0.1:8650\n"
        "  infravitals score --data-dir demo     its scores of now\n  infravitals history --data-dir demo   its year\n"
        "kept: the scorecards and events of the year; raw points as long as a real site keeps them (most 40 days), and score --as-of reaches no further back",
    )


def add_page_port(parser: Parser) -> None:
    """`--port` of a command that shows the page on loopback."""
    parser.add_argument(
        "--port",
        type=whole_number(1, 65535),
        default=8650,
        metavar=say("端口", "PORT"),
        help=say("网页端口(默认 8650，只在本机)", "the page's port on loopback (8650)"),
    )


def _demo(options: argparse.Namespace) -> int:
    from collector.demo.make import make

    made = make(options.data_dir, options.config, options.port, days=options.days, is_once=options.once)
    if options.once:
        print(made, file=sys.stderr)
    return OK
