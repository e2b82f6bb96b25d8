"""The frame of both command lines: parser, help and complaints in the reader's language."""

import argparse
import errno
import io
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from agent import language
from agent.begin import tell_interrupted
from agent.language import say

OK, TROUBLE, WRONG = 0, 1, 2
"""Exit codes: done; the world is in trouble; a file or the command line is wrong."""

MOST_DIGITS = 18
"""Of a whole number on the command line."""

SHELLS = ("bash", "zsh", "tcsh", "fish")

_COMPLAINTS = (
    (r"unrecognized arguments: (.*)", "无法识别的参数：{}"),
    (r"the following arguments are required: (.*)", "缺少参数：{}"),
    (r"argument (.*): invalid choice: (.*) \(choose from (.*)\)", "参数 {}：没有 {}，可选：{}"),
    (r"one of the arguments (.*) is required", "须写其中之一：{}"),
    (r"argument (.*): not allowed with argument (.*)", "参数 {} 不能与 {} 同写"),
    (r"argument (.*): expected one argument", "参数 {}：后面要跟一个值"),
    (r"argument (.*): invalid int value: (.*)", "参数 {}：应为整数，实际是 {}"),
    (r"argument (.*): invalid float value: (.*)", "参数 {}：应为数，实际是 {}"),
    (r"argument (.*): invalid (.*) value: (.*)", "参数 {}：应为 {}，实际是 {}"),
    (r"argument (.*?): (.*)", "参数 {}：{}"),
    (r"ambiguous option: (.*) could match (.*)", "选项 {} 不明确，可能是 {}"),
)
"""What argparse says, and the same in Chinese."""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as written, with the usage line in the reader's language."""

    def add_usage(
        self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: str | None = None
    ) -> None:
        """As argparse does it, with our word for `usage`."""
        super().add_usage(usage, actions, groups, say("用法：", "usage: ") if prefix is None else prefix)


class Parser(argparse.ArgumentParser):
    """A parser that complains in one sentence of the reader's language, with exit code 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"add_help": False, "formatter_class": Formatter, **options})
        # argparse names its two groups in English; they are the reader's to read
        self._positionals.title, self._optionals.title = say("参数", "arguments"), say("选项", "options")
        self.add_argument("-h", "--help", action="help", help=say("显示帮助", "show this help"))
        self.add_argument("--lang", choices=("zh", "en"), help=say("语言：中文或英文", "language: Chinese or English"))

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and end."""
        for pattern, chinese in _COMPLAINTS:
            if match := re.fullmatch(pattern, message, re.DOTALL):
                message = say(chinese.format(*match.groups()), message)
        self.exit(WRONG, say(f"{self.prog}：{message}(见 --help)\n", f"{self.prog}: {message}; see --help\n"))


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """What reads a whole number within these bounds from the command line."""

    def read(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(
            say(
                f"应为 {least} 到 {most} 的整数，实际是 '{text}'",
                f"expected a whole number of {least} to {most}, found '{text}'",
            )
        )

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """What reads a number within these bounds from the command line; `nan` is within none."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return value
        raise argparse.ArgumentTypeError(
            say(
                f"应为 {least:g} 到 {most:g} 的数，实际是 '{text}'",
                f"expected a number of {least:g} to {most:g}, found '{text}'",
            )
        )

    return read


def end_well(command: Callable[[], int]) -> int:
    """Run a command; what a terminal or a pipe does to us is an exit code and at most one sentence, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot print Chinese gets question marks
    try:
        status = command()
        if sys.stdout:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return tell_interrupted()
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stdout = None  # the interpreter would flush it once more and complain
        return TROUBLE
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename:
            raise
        sys.stdout = None
        print(say("输出写不下：磁盘已满", "the output does not fit: the disk is full"), file=sys.stderr)
        return TROUBLE


def find_language(arguments: Sequence[str]) -> language.Language | None:
    """The language that the command line asks for; needed before the help texts are made."""
    for argument, following in pairwise([*arguments, ""]):
        word = following if argument == "--lang" else argument.removeprefix("--lang=")
        if argument.startswith("--lang") and word in ("zh", "en"):
            return "zh" if word == "zh" else "en"
    return None


class _Version(argparse.Action):
    """Prints the version and ends; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(version_words())
        parser.exit(OK)


def add_version(parser: argparse.ArgumentParser) -> None:
    """`--version`, as every program has it; the command `version` does the same."""
    parser.add_argument("--version", action=_Version, nargs=0, help=say("打印版本", "print the version"))


def version_words() -> str:
    """What both programs say of their version."""
    from importlib.metadata import version

    return f"infravitals {version('infravitals')}"


def add_format(parser: argparse.ArgumentParser, formats: tuple[str, ...]) -> None:
    """`--format`, the first being the default."""
    parser.add_argument("--format", choices=formats, default=formats[0], help=say("输出格式", "output format"))
