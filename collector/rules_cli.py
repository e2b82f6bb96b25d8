"""The commands about the rules: list, check, test, explain, and those of evidence_cli that compare them."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commandline import OK, TROUBLE, WRONG, Parser, add_format
from agent.language import say
from collector.evidence_cli import AddOptions, add_rules_commands

if TYPE_CHECKING:
    from collector.ruleset import Checked

Handler = Callable[[argparse.Namespace], int]


def add_commands(parser: Parser, add_place: AddOptions, add_as_of: AddOptions) -> None:
    """All under `rules`."""
    commands = parser.add_subparsers(title=say("命令", "commands"), metavar=say("命令", "COMMAND"), required=True)

    def add_plain(name: str, handler: Handler, zh: str, en: str) -> Parser:
        child: Parser = commands.add_parser(name, help=say(zh, en), description=say(zh, en))
        child.set_defaults(handler=handler)
        return child

    def add(name: str, handler: Handler, zh: str, en: str) -> Parser:
        child = add_plain(name, handler, zh, en)
        child.add_argument(
            "--rules",
            type=Path,
            metavar=say("目录", "DIR"),
            help=say("规则目录(默认随程序提供)", "the rules (the shipped ones)"),
        )
        return child

    add_format(add("list", _list, "列出所有准则", "list all criteria"), ("table", "json"))
    check = add("check", _check, "检查所有规则文件", "check all rule files")
    check.add_argument(
        "--all",
        action="store_true",
        help=say("逐条列出尚无采集源的信号", "list every signal that no source emits yet"),
    )
    add_format(check, ("text", "json"))
    test = add("test", _test, "用用例测试规则", "run the cases of the rules")
    test.add_argument("criteria", nargs="*", metavar=say("准则", "CRITERION"), help=say("只测这些", "only these"))
    test.add_argument(
        "--cases",
        type=Path,
        default=Path("tests/rules"),
        metavar=say("目录", "DIR"),
        help=say("用例目录(默认 tests/rules)", "the cases (tests/rules)"),
    )
    explain = add(
        "explain",
        _explain,
        "解释一条准则：问题、查询、标尺、依据",
        "explain a criterion: question, query, scale, basis",
    )
    explain.add_argument("criterion", metavar=say("准则", "CRITERION"))
    add_rules_commands(add_plain, add_place, add_as_of)


def _list(options: argparse.Namespace) -> int:
    import msgspec

    from collector.ruleset import load_rules
    from collector.tables import draw_rules, list_rules
    from collector.terminal import show_lines

    rows = list_rules(load_rules(options.rules).rules.book)
    if options.format == "json":
        print(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    else:
        show_lines(lambda width: draw_rules(rows, width))
    return OK


def _check(options: argparse.Namespace) -> int:
    import msgspec

    from collector.ruleset import check_rules

    checked = check_rules(options.rules)
    if options.format == "json":
        found = {
            "mistakes": [mistake._asdict() for mistake in checked.mistakes],
            "warnings": [warning._asdict() for warning in (*checked.warnings, *checked.unsourced)],
        }
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _show_checked(checked, options.all)
    return WRONG if checked.mistakes else OK


def _show_checked(checked: "Checked", is_all: bool) -> None:
    """Mistakes, warnings, and last what is expected of a young program: signals that no source emits, as one line."""
    for mistake in checked.mistakes:
        print(mistake, file=sys.stderr)
    for warning in (*checked.warnings, *(checked.unsourced if is_all else ())):
        print(say("提醒 ", "warning ") + str(warning))
    if checked.unsourced and not is_all:
        number = len(checked.unsourced)
        text = say(
            f"提醒 {number} 处用到的信号尚无采集源，将显示为无数据；用 --all 逐条列出",
            f"warning {number} uses of signals that no source emits yet, they will show no_data; --all lists them",
        )
        print(text)
    if not checked.mistakes:
        number = len(checked.warnings) + len(checked.unsourced)
        print(
            say(
                f"{checked.criteria} 条准则没有问题，{number} 处提醒",
                f"{checked.criteria} criteria in order, {number} warnings",
            )
        )


def _test(options: argparse.Namespace) -> int:
    from collector.cases import run_cases
    from collector.ruleset import load_rules, memory_store

    loaded = load_rules(options.rules)
    unknown = [name for name in options.criteria if name not in loaded.rules.book.criteria]
    if unknown:
        print(say(f"没有准则 {'、'.join(unknown)}", f"there is no criterion {', '.join(unknown)}"), file=sys.stderr)
        return WRONG
    if not options.cases.is_dir():
        print(
            say(
                f"没有用例目录 {options.cases}；请在源码目录运行，或用 --cases 指明",
                f"there is no directory of cases {options.cases}; run it in the source directory, or name it by --cases",
            ),
            file=sys.stderr,
        )
        return WRONG
    passed = failed = 0
    with memory_store(loaded.rules.catalogue) as store:
        for outcome in run_cases(options.cases, loaded.rules, store, options.criteria):
            for mistake in outcome.mistakes:
                print(mistake, file=sys.stderr)
            passed += not outcome.mistakes
            failed += bool(outcome.mistakes)
    print(say(f"{passed} 个用例通过，{failed} 个不符", f"{passed} cases passed, {failed} failed"))
    return OK if passed and not failed else TROUBLE


def _explain(options: argparse.Namespace) -> int:
    from agent.documents import nearest
    from collector.report import explain_rule
    from collector.ruleset import compiled_now, load_rules

    rules = load_rules(options.rules).rules
    name = options.criterion
    if name not in rules.book.criteria:
        print(
            say(f"没有准则 '{name}'", f"there is no criterion '{name}'") + nearest(name, rules.book.criteria),
            file=sys.stderr,
        )
        return WRONG
    print(explain_rule(rules, name, compiled_now(rules, name)))
    return OK
