"""`infravitals ledger`: made = applied + set aside + dropped + waiting, per agent, in batches and in points."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.commandline import OK, TROUBLE, Parser, add_format
from agent.language import say

if TYPE_CHECKING:
    from collector.ledger import Ledger

AddCommand = Callable[[str, Callable[[argparse.Namespace], int], str, str], Parser]


def add_command(add: AddCommand, add_place: Callable[[Parser], None]) -> None:
    """`ledger` of the program itself."""
    ledger = add(
        "ledger",
        _ledger,
        "对账：每个采集代理生成的数据去了哪里，少了的逐条点名",
        "hold what every agent made against what became of it; what is missing is named",
    )
    add_place(ledger)
    add_format(ledger, ("text", "json"))
    ledger.epilog = say(
        """生成 = 入库 + 搁置 + 丢弃 + 等待；差额不为 0 即对不上。定义见 docs/ledger.md。

退出码：0 没有对不上的；1 有对不上的""",
        """made = applied + set aside + dropped + waiting; a difference other than 0 does not balance. See docs/ledger.md.

exit codes: 0 nothing is known not to balance; 1 something does not balance""",
    )


def _ledger(options: argparse.Namespace) -> int:
    import msgspec

    from collector import beside
    from collector.ledger import Ledger

    place = beside.find_place(options.config, options.data_dir)
    body = beside.ask_store(place, "ledger", {})
    found = msgspec.json.decode(body, type=Ledger)
    if options.format == "json":
        print(msgspec.json.format(body, indent=2).decode())
    else:
        _show(found)
    return OK if found.is_balanced else TROUBLE


def _show(found: "Ledger") -> None:
    from collector.grid import draw
    from collector.tables import ledger_grid

    if not found.agents:
        print(say("还没有采集代理送来数据。", "no agent has sent anything yet."))
        return
    for line in draw(ledger_grid(found), None)[1:]:
        print(line.text)
    for agent in found.agents:
        for finding in agent.findings:
            print(f"{agent.agent}: {finding.text} [{finding.code}]")
    number = sum(agent.state == "unbalanced" for agent in found.agents)
    if number:
        print(say(f"{number} 个采集代理的账对不上", f"{number} accounts do not balance"))
