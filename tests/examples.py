"""The fenced examples of the documents: read out of the pages, taken apart into commands."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = tuple(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
)


@dataclass(frozen=True)
class Example:
    """One fenced block. language: the word behind the fence, '' without any. line: of the fence."""

    page: str
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        """Its first line, by which it is known."""
        return self.text.partition("\n")[0]

    @property
    def place(self) -> str:
        """Where it stands, as an editor takes it."""
        return f"{self.page}:{self.line}"


def examples(page: str) -> Iterator[Example]:
    """The blocks of a page in their order, indented ones too."""
    opened: tuple[int, str, str] | None = None
    held: list[str] = []
    for number, line in enumerate((ROOT / page).read_text("utf-8").splitlines(), 1):
        fence = re.match(r"( *)```(\S*)", line)
        if fence is None:
            held.append(line)
        elif opened is None:
            opened, held = (number, fence[2], fence[1]), []
        else:
            begun, language, indent = opened
            yield Example(page, begun, language, "".join(f"{one.removeprefix(indent)}\n" for one in held))
            opened = None
    assert opened is None, f"{page}: the block of line {opened} has no end"


def commands(example: Example) -> Iterator[str]:
    """The commands of a shell block: prompts are taken off, a here-document stays with its command."""
    lines = iter(example.text.splitlines())
    for line in lines:
        command = re.sub(r"^[#$] ", "", line) if example.language == "console" else line
        if "<<'END'" in line:
            held = [command]
            for more in lines:
                held.append(more)
                if more == "END":
                    break
            command = "\n".join(held)
        if command.strip() and not command.lstrip().startswith("#"):
            yield command


def calls(command: str) -> Iterator[tuple[str, list[str]]]:
    """Each call of one of our programs in a command: the program and its arguments, without what the shell takes."""
    for part in re.split(r"&&|\|\||;|\n", command.partition("<<'END'")[0]):
        found = re.match(r"\s*(?:do |sudo -u \S+ )?(?:\S*/)?(infravitals(?:-agent)?) (.*)", part)
        if found:
            words = shlex.split(found[2], comments=True)
            yield found[1], words[: words.index(">")] if ">" in words else words
