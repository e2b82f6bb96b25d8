"""The command `infravitals`: reads arguments, calls what does the work, prints. Imports what a command needs when it runs."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent import language
from agent.commandline import (
    OK,
    SHELLS,
    TROUBLE,
    WRONG,
    Parser,
    add_format,
    add_version,
    end_well,
    find_language,
    version_words,
    whole_number,
)
from agent.documents import FileMistakes
from agent.errors import InfravitalsError, UnfitSecret, WrongCall
from agent.language import say
from collector import backup_cli, demo_cli, doctor_cli, drill_cli, ledger_cli, rules_cli, setup_cli, site_cli, store_cli
from collector.evidence_cli import add_commands

Handler = Callable[[argparse.Namespace], int]

EARLIEST = 1_577_836_800_000 - 14 * 3_600_000
"""2020-01-01 wherever it comes first: no point is older, so no score can be."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code. Trouble is one sentence on stderr."""
    return end_well(lambda: _run_command(list(sys.argv[1:] if argv is None else argv)))


def _run_command(arguments: list[str]) -> int:
    language.choose(find_language(arguments))
    try:
        import collector.report  # noqa: F401  # the first import of the extra: absent when only the agent is installed
    except ModuleNotFoundError as error:
        text = say(
            "只安装了采集代理；请在源码目录执行 pip install '.[collector]'",
            "only the agent is installed; run pip install '.[collector]' in the source directory",
        )
        print(f"{text} ({error.name})", file=sys.stderr)
        return TROUBLE
    options = build_parser().parse_args(arguments)
    handler: Handler = options.handler
    try:
        return handler(options)
    except InfravitalsError as error:
        print(error, file=sys.stderr)
        return WRONG if isinstance(error, FileMistakes | WrongCall | UnfitSecret) else TROUBLE


def build_parser() -> Parser:
    """The whole command line, in the reader's language."""
    parser = Parser(
        prog="infravitals",
        description=say(
            "医院信息基础设施的体征：采集、存储、评分，每个数字都可复核。",
            "The vital signs of hospital infrastructure: gathered, stored, scored, every number open to a second look.",
        ),
        epilog=_epilog(),
    )
    commands = parser.add_subparsers(title=say("命令", "commands"), metavar=say("命令", "COMMAND"), required=True)

    def add(name: str, handler: Handler, zh: str, en: str) -> Parser:
        child: Parser = commands.add_parser(name, help=say(zh, en), description=say(zh, en))
        child.set_defaults(handler=handler)
        return child

    _add_up(
        add(
            "up",
            _up,
            "在本机一键运行：采集、存储、评分、网页",
            "all in one on this machine: gather, store, score, show",
        )
    )
    _add_config(add("serve", _serve, "运行采集中心，从消息服务器接收数据", "run the collector behind a broker"))
    score = add("score", _score, "按某一时刻评分", "score as of a time")
    _add_place(score)
    _add_as_of(score)
    score.add_argument(
        "--revision",
        type=whole_number(1, 10**9),
        metavar=say("修订", "N"),
        help=say("不重新评分，给出已存的某次修订", "give a stored revision instead of scoring anew"),
    )
    add_format(score, ("table", "json"))
    rules = add("rules", _no_command, "查看、检查、测试评分规则", "list, check, test and explain the rules")
    rules_cli.add_commands(rules, _add_place, _add_as_of)
    site_cli.add_commands(add, _default_data())
    setup_cli.add_commands(add, _no_command)
    store_cli.add_commands(add, _no_command)
    drill_cli.add_commands(add)
    demo_cli.add_command(add)
    check = add(
        "check",
        _check_config,
        "检查 collector.yaml 与其中所写的密码文件，不打开任何连接",
        "check a collector.yaml and the secrets it names; opens no connection",
    )
    _add_config(check)
    add("sample", _sample, "打印带注释的 collector.yaml 样例", "print a commented collector.yaml")
    aside = add("quarantine", _quarantine, "查看被搁置的数据及原因", "show what was set aside and why")
    _add_place(aside)
    add_format(aside, ("table", "json"))
    add_commands(add, _add_place, _add_as_of, _time)
    ledger_cli.add_command(add, _add_place)
    doctor_cli.add_command(add, _add_place)
    backup_cli.add_commands(add, _add_place)
    completion = add("completion", _completion, "打印 shell 补全脚本", "print a shell completion script")
    completion.add_argument("shell", choices=SHELLS)
    add("version", _version, "打印版本", "print the version")
    add_version(parser)
    return parser


def _epilog() -> str:
    return say(
        """示例：
  infravitals up                                   采集本机并打开网页 http://127.0.0.1:8650
  infravitals up --once --format json              采集一次、评分、打印一份 JSON
  infravitals score --as-of 2026-03-31T00:00:00+08:00
  infravitals rules explain telemetry-completeness 这条准则怎么算、依据是什么
  infravitals serve -c collector.yaml              医院里的采集中心
  infravitals register draft -o register.yaml      按已采到的数据写出资产登记初稿
  infravitals register check --site-folder site    检查站点目录

退出码：0 正常；1 遇到问题或用例不符；2 文件或命令行有误；130 被 Ctrl-C 中断""",
        """examples:
  infravitals up                                   gather this machine, open http://127.0.0.1:8650
  infravitals up --once --format json              gather once, score, print one JSON document
  infravitals score --as-of 2026-03-31T00:00:00+08:00
  infravitals rules explain telemetry-completeness how a criterion is computed, and on what basis
  infravitals serve -c collector.yaml              the collector of a hospital
  infravitals register draft -o register.yaml      a first asset register from what was seen
  infravitals register check --site-folder site    check a site folder

exit codes: 0 ok; 1 trouble, or a case that fails; 2 a file or the command line is wrong; 130 ended by Ctrl-C""",
    )


def _add_up(parser: Parser) -> None:
    parser.add_argument(
        "--once", action="store_true", help=say("采集一次、评分、打印后退出", "gather once, score, print, end")
    )
    parser.add_argument(
        "--site",
        type=_site,
        default="local",
        metavar=say("名称", "NAME"),
        help=say("医院名称(默认 local)", "the site's id (local)"),
    )
    demo_cli.add_page_port(parser)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=_default_data(),
        metavar=say("目录", "DIR"),
        help=say(f"数据目录（默认 {_default_data()}）", f"where data is kept ({_default_data()})"),
    )
    parser.add_argument(
        "--rules",
        type=Path,
        metavar=say("目录", "DIR"),
        help=say("规则目录(默认随程序提供)", "the rules (the shipped ones)"),
    )
    parser.add_argument(
        "--sources",
        type=Path,
        metavar=say("文件", "FILE"),
        help=say(
            "含 sources 一节的 YAML 文件：另外采集，或代替缺省的同名采集源",
            "a YAML file with a section `sources`: gathered too, or instead of the default of that name",
        ),
    )
    site_cli.add_folder(parser)
    _add_as_of(parser)
    add_format(parser, ("table", "json"))


def _add_place(parser: Parser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar=say("文件", "FILE"),
        help=say("配置文件 collector.yaml", "the configuration, collector.yaml"),
    )
    where.add_argument(
        "--data-dir",
        type=Path,
        default=_default_data(),
        metavar=say("目录", "DIR"),
        help=say(f"`up` 的数据目录（默认 {_default_data()}）", f"the data directory of `up` ({_default_data()})"),
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        required=True,
        metavar=say("文件", "FILE"),
        help=say("配置文件 collector.yaml", "the configuration, collector.yaml"),
    )


def _add_as_of(parser: Parser) -> None:
    parser.add_argument(
        "--as-of",
        type=_time,
        metavar=say("时刻", "TIME"),
        help=say("带时区的时刻，如 2026-03-31T00:00:00+08:00(默认现在)", "a time with its offset (default: now)"),
    )


def _default_data() -> Path:
    import os

    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "infravitals"


def _time(text: str) -> int:
    from collector.evaluate import parse_time

    try:
        moment = parse_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            say(
                f"'{text}' 不是带时区的时刻，例如 2026-03-31T00:00:00+08:00",
                f"'{text}' is no time with an offset, such as 2026-03-31T00:00:00+08:00",
            )
        ) from error
    if moment < EARLIEST:
        raise argparse.ArgumentTypeError(
            say(f"{text} 早于 2020 年，那时没有数据", f"{text} lies before 2020, when there was no data")
        )
    if moment > time.time() * 1000:
        raise argparse.ArgumentTypeError(
            say(f"{text} 在未来，无法评分", f"{text} lies in the future and cannot be scored")
        )
    return moment


def _site(text: str) -> str:
    from agent.catalogue import explain_id, is_id
    from collector.simulated import PREFIX, is_simulated

    if not is_id(text):
        raise argparse.ArgumentTypeError(explain_id("", text))
    if is_simulated(text):
        raise argparse.ArgumentTypeError(
            say(
                f"'{PREFIX}' 开头的名称留给模拟数据（infravitals demo），请换一个",
                f"names that begin with '{PREFIX}' are for simulated data (infravitals demo); choose another",
            )
        )
    return text


def _no_command(options: argparse.Namespace) -> int:
    return WRONG


def _up(options: argparse.Namespace) -> int:
    from collector.embedded import Options

    if options.as_of is not None and not options.once:
        print(
            say(
                "--as-of 只能与 --once 一起用；过去的评分请用 infravitals score --as-of",
                "--as-of goes with --once; for a score of the past use infravitals score --as-of",
            ),
            file=sys.stderr,
        )
        return WRONG
    wanted = Options(options.data_dir, options.site, options.port, options.rules, options.site_folder, options.sources)
    if options.once:
        from collector.once import once

        return _show_scorecard(once(wanted, options.as_of), options.format)
    from collector.up import run

    return run(wanted)


def _serve(options: argparse.Namespace) -> int:
    from collector import serve
    from collector.config import read_config

    return serve.run(read_config(options.config))


def _score(options: argparse.Namespace) -> int:
    from collector import beside

    place = beside.find_place(options.config, options.data_dir)
    if options.revision is None:
        return _show_scorecard(beside.ask_score(place, options.as_of), options.format)
    wanted = {"as_of": options.as_of, "revision": options.revision}
    return _show_scorecard(beside.ask_store(place, "card", wanted), options.format)


def _show_scorecard(body: bytes, form: str) -> int:
    """`body` is the scorecard's JSON, the same from a running server and from the file."""
    import msgspec

    from collector import simulated
    from collector.score import Scorecard
    from collector.tables import draw_scorecard
    from collector.terminal import show_lines

    if form == "json":
        print(msgspec.json.format(simulated.mark(body), indent=2).decode())
        return OK
    card = msgspec.json.decode(body, type=Scorecard)
    show_lines(lambda width: draw_scorecard(card, width))
    return OK


def _check_config(options: argparse.Namespace) -> int:
    from agent.secret_check import refuse_troubled
    from collector.config import read_config

    config = read_config(options.config)
    site_cli.check_folder(config)
    refuse_troubled(options.config, config.secrets())
    print(say(f"{options.config}：没有问题", f"{options.config}: in order"))
    return OK


def _sample(options: argparse.Namespace) -> int:
    from collector.config import sample

    print(sample(), end="")
    return OK


def _quarantine(options: argparse.Namespace) -> int:
    from collector import beside

    found = beside.ask_quarantine(beside.find_place(options.config, options.data_dir), options.format)
    print(found.decode(), end="")
    return OK


def _completion(options: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(build_parser(), options.shell))
    return OK


def _version(options: argparse.Namespace) -> int:
    print(version_words())
    return OK


if __name__ == "__main__":
    sys.exit(main())
