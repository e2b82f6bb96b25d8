"""The command `infravitals-agent`. What a command needs is imported when it runs, so that `run` stays small."""

import argparse
import sys
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
)
from agent.errors import InfravitalsError, UnfitSecret, WrongCall
from agent.language import say
from agent.snmp.options import add_commands as add_snmp_commands


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code. Trouble is one sentence on stderr."""
    return end_well(lambda: _run_command(list(sys.argv[1:] if argv is None else argv)))


def _run_command(arguments: list[str]) -> int:
    language.choose(find_language(arguments))
    parsed = build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        return command(parsed)
    except InfravitalsError as error:
        from agent.config import UnusableSource
        from agent.documents import FileMistakes

        print(error, file=sys.stderr)
        return WRONG if isinstance(error, FileMistakes | UnusableSource | UnfitSecret | WrongCall) else TROUBLE


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, in the reader's language."""
    parser = Parser(
        prog="infravitals-agent",
        description=say("采集本机的基础设施数据，送往采集中心。", "Gathers this machine's infrastructure facts."),
        epilog=_epilog(),
    )
    commands = parser.add_subparsers(title=say("命令", "commands"), metavar=say("命令", "COMMAND"), required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> Parser:
        child = commands.add_parser(name, help=text, description=text)
        child.set_defaults(command=command)
        return child

    _add_config(add("run", _run, say("按配置持续采集", "gather as configured until ended")), is_required=True)
    trial = add(
        "try", _try, say("采集一个采集源一次并显示，不连消息服务器", "gather one source once and show it; no broker")
    )
    trial.add_argument("source", metavar=say("采集源", "SOURCE"), help=say("见 sources 命令", "see `sources`"))
    _add_config(trial, is_required=False)
    add_format(trial, ("table", "json"))
    check = add(
        "check",
        _check,
        say(
            "检查配置文件与其中所写的密码文件，不打开任何连接",
            "check a configuration and the secrets it names; opens no connection",
        ),
    )
    _add_config(check, is_required=True)
    add_format(check, ("text", "json"))
    doctor = add(
        "doctor",
        _doctor,
        say(
            "查找送不到数据的原因，给出修复命令；什么都不改",
            "find what keeps data from arriving, and what mends it; changes nothing",
        ),
    )
    _add_config(doctor, is_required=True)
    add_format(doctor, ("text", "json"))
    sample = add("sample", _sample, say("打印带注释的配置样例", "print a commented configuration"))
    sample.add_argument("source", nargs="?", metavar=say("采集源", "SOURCE"), help=say("只写这一个", "only this one"))
    add("sources", _sources, say("列出所有采集源", "list all sources"))
    snmp = commands.add_parser(
        "snmp", help=say("SNMP 设备：试问、录制、重放、发现", "SNMP devices: try, record, replay, discover")
    )
    add_snmp_commands(snmp)
    completion = add("completion", _completion, say("打印 shell 补全脚本", "print a shell completion script"))
    completion.add_argument("shell", choices=SHELLS)
    add("version", _version, say("打印版本", "print the version"))
    add_version(parser)
    return parser


def _epilog() -> str:
    return say(
        """示例：
  infravitals-agent sample > agent.yaml        生成配置样例
  infravitals-agent check -c agent.yaml        检查配置
  infravitals-agent try host_disk              看一个采集源采到什么
  infravitals-agent run -c agent.yaml          开始采集
  infravitals-agent doctor -c agent.yaml       数据没到？查原因

退出码：0 正常；1 遇到问题；2 文件或命令行有误；130 被 Ctrl-C 中断""",
        """examples:
  infravitals-agent sample > agent.yaml        write a sample configuration
  infravitals-agent check -c agent.yaml        check it
  infravitals-agent try host_disk              see what one source gathers
  infravitals-agent run -c agent.yaml          gather
  infravitals-agent doctor -c agent.yaml       data do not arrive? find out why

exit codes: 0 ok; 1 trouble; 2 a file or the command line is wrong; 130 ended by Ctrl-C""",
    )


def _add_config(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        required=is_required,
        metavar=say("文件", "FILE"),
        help=say("配置文件 agent.yaml", "the configuration, agent.yaml"),
    )


def _run(parsed: argparse.Namespace) -> int:
    from agent.lean import defer

    defer("urllib.request")  # paho loads it for web sockets through a proxy: 1.8 MB that no agent needs

    from agent.config import read_config
    from agent.service import serve

    return serve(read_config(parsed.config))


def _try(parsed: argparse.Namespace) -> int:
    from agent.trial import render_points, try_source

    trial = try_source(parsed.source, parsed.config)
    if trial.remark:
        print(trial.remark, file=sys.stderr)
    if parsed.format == "json":
        print_json(trial.points)
    elif trial.points:
        print(render_points(trial.points))
    return OK


def _check(parsed: argparse.Namespace) -> int:
    from agent.config import read_config
    from agent.documents import FileMistakes
    from agent.secret_check import refuse_troubled, secrets_in

    try:
        config = read_config(parsed.config)
        found = [*secrets_in(config.broker, "broker")]
        found += [one for source in config.sources for one in secrets_in(source.config, f"sources.{source.name}")]
        refuse_troubled(parsed.config, found)
    except FileMistakes as error:
        if parsed.format == "text":
            raise
        print_json({"mistakes": [mistake._asdict() for mistake in error.mistakes]})
        return WRONG
    if parsed.format == "json":
        print_json({"mistakes": []})
    else:
        count = len(config.sources)
        print(say(f"{parsed.config}：没有问题，{count} 个采集源", f"{parsed.config}: in order, {count} sources"))
    return OK


def _doctor(parsed: argparse.Namespace) -> int:
    from agent.checkup import is_well, render, render_json
    from agent.config import read_config
    from agent.doctor import examine

    findings = examine(read_config(parsed.config), parsed.config)
    print(render_json(findings) if parsed.format == "json" else render(findings))
    return OK if is_well(findings) else TROUBLE


def _sample(parsed: argparse.Namespace) -> int:
    from agent.sample import write_sample

    print(write_sample(parsed.source), end="")
    return OK


def _sources(parsed: argparse.Namespace) -> int:
    from agent.sample import describe_sources
    from agent.table import render_table

    headers = (say("采集源", "SOURCE"), say("采集内容", "MEASURES"), say("系统", "SYSTEMS"))
    print(render_table(headers, describe_sources()))
    return OK


def _completion(parsed: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(build_parser(), parsed.shell))
    return OK


def _version(parsed: argparse.Namespace) -> int:
    print(version_words())
    return OK


def print_json(value: object) -> None:
    """Print a value as JSON that a person can read too."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


if __name__ == "__main__":
    sys.exit(main())
