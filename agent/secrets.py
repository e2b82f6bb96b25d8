"""What is no secret: an empty text, a word out of an example, a file that everybody may read."""

import os
import re
import stat
from pathlib import Path

from agent.language import say

MOST_CHARACTERS = 4096
_WORDS = """
changeme changethis changeit change replaceme password passwd pass yourpassword mypassword secret yoursecret mysecret
topsecret token yourtoken mytoken example sample default admin root guest test mosquitto infravitals brokerpassword
密码 口令 你的密码 请修改 请更改 修改我 示例
"""
_EXAMPLES = frozenset(_WORDS.split())
"""Without case and punctuation; what examples say and what is tried first by whoever has no password."""


def explain_unfit(text: str) -> str | None:
    """Why a text is no secret; None when it may be one. Never shows the text."""
    if not text.strip():
        return say("是空的", "is empty")
    if "\n" in text or "\r" in text:
        return say("不止一行，是不是写错了文件", "has more than one line; is it another file")
    if len(text) > MOST_CHARACTERS:
        return say(
            f"超过 {MOST_CHARACTERS} 个字符，是不是写错了文件", f"is longer than {MOST_CHARACTERS}; is it another file"
        )
    plain = re.sub(r"[\W_]", "", text.casefold())
    if plain in _EXAMPLES or len(set(text)) == 1:
        return say(
            "是示例中的词，谁都知道；请换成真正的，例如 openssl rand -base64 24 的结果",
            "is an example's word that everybody knows; make a real one, such as by openssl rand -base64 24",
        )
    return None


def is_open_to_all(path: Path) -> bool:
    """Whether every user of this machine may read a file; False where that cannot be told."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return os.name == "posix" and bool(mode & stat.S_IROTH)
