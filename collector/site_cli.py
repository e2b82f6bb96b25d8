"""The commands about a site folder, `register`, `attest` and `maintenance`: parsers and what they call."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.commandline import WRONG, Parser, add_format, whole_number
from agent.language import say

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from collector.config import CollectorConfig

Handler = Callable[[argparse.Namespace], int]


class Add(Protocol):
    """Adds one command to the command line."""

    def __call__(self, name: str, handler: Handler, zh: str, en: str) -> Parser:
        """The command's parser."""


def add_commands(add: Add, default_data: Path) -> None:
    """`register`, `attest` and `maintenance`."""
    register = add("register", _no_command, "资产登记：初稿、检查、查看", "the asset register: draft, check, show")
    _add_register(_below(register, default_data))
    register.epilog = say(
        """示例：
  infravitals register draft -o register.yaml         按已采到的数据写出初稿，核对后使用
  infravitals register check --site-folder site       只检查文件
  infravitals register check -c collector.yaml        再与已采到的数据对照
  infravitals register show his-db-1 --as-of 2026-01-01""",
        """examples:
  infravitals register draft -o register.yaml         a first one from what was seen; look at it before use
  infravitals register check --site-folder site       the files alone
  infravitals register check -c collector.yaml        and held against what was seen
  infravitals register show his-db-1 --as-of 2026-01-01""",
    )
    attest = add(
        "attest", _no_command, "证明：由人提供的事实，有期限", "attestations: what people vouch for, for a time"
    )
    _add_attest(_below(attest, default_data))
    attest.epilog = say(
        """示例：
  infravitals attest add CRITERION --value 3 --reason 等保三级测评通过 --author 张三 --role 信息科主任 \\
      --document report.pdf --expires 2027-06-30
  infravitals attest add CRITERION --not-applicable --reason 没有分院 --author 张三 --role 信息科主任 --expires 2027-06-30
  infravitals attest list --due 60
  infravitals attest renew CRITERION --expires 2028-06-30 --document report-2027.pdf""",
        """examples:
  infravitals attest add CRITERION --value 3 --reason 'level 3 passed' --author 'Zhang San' --role 'head of IT' \\
      --document report.pdf --expires 2027-06-30
  infravitals attest add CRITERION --not-applicable --reason 'one site only' --author 'Zhang San' --role 'head of IT' --expires 2027-06-30
  infravitals attest list --due 60
  infravitals attest renew CRITERION --expires 2028-06-30 --document report-2027.pdf""",
    )
    maintenance = add("maintenance", _no_command, "事先公布的维护", "maintenance announced beforehand")
    _add_maintenance(_below(maintenance, default_data))
    maintenance.epilog = say(
        """示例：
  infravitals maintenance add his-db-1 his-db-2 --from 2026-12-05T22:00:00+08:00 --to 2026-12-06T02:00:00+08:00 \\
      --reason 升级数据库 --author 张三
  infravitals maintenance list""",
        """examples:
  infravitals maintenance add his-db-1 his-db-2 --from 2026-12-05T22:00:00+08:00 --to 2026-12-06T02:00:00+08:00 \\
      --reason 'database upgrade' --author 'Zhang San'
  infravitals maintenance list""",
    )


def add_folder(parser: argparse.ArgumentParser) -> None:
    """`--site-folder`."""
    parser.add_argument(
        "--site-folder",
        type=Path,
        metavar=say("目录", "DIR"),
        help=say(
            "站点目录（默认由配置指明，或数据目录下的 site）",
            "the site folder (as configured, or site in the data directory)",
        ),
    )


def _below(parent: Parser, default_data: Path) -> Add:
    """Adds subcommands; each may name the site folder, the data and the rules."""
    commands = parent.add_subparsers(title=say("命令", "commands"), metavar=say("命令", "COMMAND"), required=True)

    def add(name: str, handler: Handler, zh: str, en: str) -> Parser:
        child: Parser = commands.add_parser(name, help=say(zh, en), description=say(zh, en))
        child.set_defaults(handler=handler, default_data=default_data)
        add_folder(child)
        _add_data(child, default_data)
        _option(
            child, "--rules", ("目录", "DIR"), ("规则目录（默认随程序提供）", "the rules (the shipped ones)"), type=Path
        )
        return child

    return add


def _add_data(parser: Parser, default_data: Path) -> None:
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
        metavar=say("目录", "DIR"),
        help=say(f"`up` 的数据目录（默认 {default_data}）", f"the data directory of `up` ({default_data})"),
    )


Said = tuple[str, str]
"""What stands in the help, in both languages."""

DAY, TIME, TEXT, NAME = ("日期", "D"), ("时刻", "T"), ("文字", "TEXT"), ("姓名", "A")
CRITERION = ("准则", "CRITERION")


def _option(parser: argparse._ActionsContainer, name: str, value: Said, about: Said, **more: Any) -> None:
    parser.add_argument(name, metavar=say(*value), help=say(*about), **more)


def _add_register(add: Add) -> None:
    draft = add("draft", _do("draft"), "按已采到的数据写出登记初稿", "write a first register from what was seen")
    about = ("写到文件，已有的不覆盖（默认打印）", "write it there, never over a file (default: print it)")
    _option(draft, "-o", ("文件", "FILE"), about, dest="output", type=Path)
    check = add(
        "check",
        _do("check"),
        "检查站点目录；给出数据时与之对照",
        "check a site folder; with data, hold it against them",
    )
    add_format(check, ("text", "json"))
    show = add("show", _do("show"), "查看登记，或其中一项", "show the register, or one entry of it")
    _option(show, "id", ("名称", "ID"), ("只看这一项", "this entry alone"), nargs="?")
    _option(show, "--as-of", TIME, ("某一时刻的情况（默认现在）", "as of a time (now)"), type=_moment)
    add_format(show, ("table", "json", "yaml"))


def _add_attest(add: Add) -> None:
    new = add("add", _do("attest"), "提供一项证明", "attest a criterion")
    _option(new, "criterion", CRITERION, ("准则", "the criterion"))
    what = new.add_mutually_exclusive_group(required=True)
    _option(what, "--value", ("数值", "V"), ("标尺上的数值", "the value on the criterion's scale"), type=float)
    what.add_argument("--not-applicable", action="store_true", help=say("本院不适用", "it does not apply here"))
    _option(new, "--reason", TEXT, ("理由", "the reason"), required=True, type=_words)
    _option(new, "--author", NAME, ("证明人", "who vouches for it"), required=True, type=_words)
    _option(new, "--role", ("职务", "R"), ("证明人的职务", "the author's office"), required=True, type=_words)
    _add_times(new)
    shown = add("list", _do("attestations"), "何时到期、还缺什么", "what expires when, and what is missing")
    about = ("只看不算数的和这些天内到期的", "what does not count, or expires in so many days")
    _option(shown, "--due", ("天数", "DAYS"), about, type=whole_number(0, 99_999))
    add_format(shown, ("table", "json", "yaml"))
    renew = add("renew", _do("renew"), "续期：另加一项，原有的保留", "renew: one more, the old one stays")
    _option(renew, "criterion", CRITERION, ("准则", "the criterion"))
    _option(renew, "--author", NAME, ("证明人（默认不变）", "who vouches for it (as before)"), type=_words)
    _option(
        renew, "--role", ("职务", "R"), ("证明人的职务（默认不变）", "the author's office (as before)"), type=_words
    )
    _add_times(renew)
    expire = add("expire", _do("expire"), "从现在起不再有效", "end it now")
    _option(expire, "criterion", CRITERION, ("准则", "the criterion"))


def _add_times(parser: Parser) -> None:
    about = ("文件，复制到 documents/ 并记下摘要", "a paper, copied into documents/ with its digest")
    _option(parser, "--document", ("文件", "FILE"), about, type=Path)
    _option(parser, "--from", DAY, ("从何时起（默认今天）", "from when on (today)"), dest="since", type=_moment)
    _option(parser, "--expires", DAY, ("何时到期", "when it expires"), required=True, type=_moment)


def _add_maintenance(add: Add) -> None:
    new = add("add", _do("announce"), "公布一次维护", "announce maintenance")
    _option(new, "ids", ("名称", "ID"), ("资产、业务系统或线路", "assets, services or links"), nargs="+", type=_id)
    _option(new, "--from", TIME, ("开始", "its begin"), dest="since", required=True, type=_moment)
    _option(new, "--to", TIME, ("结束", "its end"), dest="until", required=True, type=_moment)
    _option(new, "--reason", TEXT, ("原因", "the reason"), required=True, type=_words)
    _option(new, "--author", NAME, ("公布人", "who announces it"), required=True, type=_words)
    add_format(add("list", _do("windows"), "列出维护", "list maintenance"), ("table", "json", "yaml"))


def _do(name: str) -> Handler:
    """The command of that name, loaded when it runs."""

    def handle(options: argparse.Namespace) -> int:
        from collector.site_commands import COMMANDS

        return COMMANDS[name](options)

    return handle


def _moment(text: str) -> str:
    from collector.site_folder import DEFAULT_ZONE
    from collector.site_times import parse_moment

    try:
        parse_moment(text, DEFAULT_ZONE)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            say(
                f"'{text}' 不是日期（2026-01-01），也不是带时区的时刻（2026-01-01T08:00:00+08:00）",
                f"'{text}' is neither a date (2026-01-01) nor a time with its offset (2026-01-01T08:00:00+08:00)",
            )
        ) from error
    return text


def _words(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(say("不能为空", "must not be empty"))
    return text


def _id(text: str) -> str:
    from agent.catalogue import explain_id, is_id

    if not is_id(text):
        raise argparse.ArgumentTypeError(explain_id("", text))
    return text


def check_folder(config: "CollectorConfig") -> None:
    """Hold the site folder of a configuration against itself and the rules. Raises FileMistakes."""
    from collector.beside import place_of, read_site
    from collector.ruleset import load_rules

    if config.site_folder is not None:
        read_site(place_of(config), load_rules(config.rules_directory).rules)


def _no_command(options: argparse.Namespace) -> int:
    return WRONG
