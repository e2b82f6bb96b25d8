"""What the system and the libraries say of a trouble, in the reader's language: the one door for their words.

What is not known here is shown as it came: an English sentence is better than none.
"""

import errno
import re
import socket
import ssl
from collections.abc import Sequence

from agent.language import say

_ERRORS = {
    errno.ENOENT: "文件或目录不存在",
    errno.EACCES: "没有权限",
    errno.EPERM: "不允许此操作",
    errno.EEXIST: "已经存在",
    errno.EISDIR: "这是一个目录",
    errno.ENOTDIR: "路径中有一段不是目录",
    errno.EROFS: "文件系统只读",
    errno.ENOSPC: "磁盘已满",
    errno.EDQUOT: "超出磁盘配额",
    errno.EIO: "读写出错，磁盘可能已损坏",
    errno.EMFILE: "打开的文件过多",
    errno.ECONNREFUSED: "连接被拒绝",
    errno.ECONNRESET: "连接被对方重置",
    errno.EPIPE: "连接已断开",
    errno.ETIMEDOUT: "超时，没有应答",
    errno.EHOSTUNREACH: "到不了该主机",
    errno.ENETUNREACH: "到不了该网络",
    errno.EADDRINUSE: "地址或端口已被占用",
    errno.EADDRNOTAVAIL: "本机没有这个地址",
    errno.ENODEV: "没有该设备",
}
"""errno -> the words in Chinese; in English the system has its own."""


def explain_system(error: OSError) -> str:
    """Why a call of the system failed, without the file's name."""
    if isinstance(error, socket.gaierror):
        return say("主机名无法解析", "the host name is unknown")
    if isinstance(error, TimeoutError) and error.errno is None:
        return say("超时，没有应答", "no answer in time")
    own = error.strerror or str(error) or type(error).__name__
    if isinstance(error, ssl.SSLError):  # its numbers are OpenSSL's
        return own
    return say(_ERRORS.get(error.errno or 0, own), own)


def explain_pem(error: OSError | ValueError) -> str:
    """Why a file of certificates or keys cannot be used."""
    own = error.reason if isinstance(error, ssl.SSLError) else None  # shorter than what it says of itself
    return own or explain(error)


def explain(error: BaseException) -> str:
    """Why something failed that may be the system's trouble or another's; `[Errno 2]` is nothing to read."""
    return explain_system(error) if isinstance(error, OSError) else str(error)


_SCHEMA: Sequence[tuple[str, str]] = (
    (r" of length >= (\d+)", "（长度至少 {}）"),
    (r" of length <= (\d+)", "（长度至多 {}）"),
    (r" of length (\d+)", "（长度 {}）"),
    (r" matching regex '(.*)'", "（须符合 {}）"),
    (r" >= (\S+)", "（不小于 {}）"),
    (r" <= (\S+)", "（不大于 {}）"),
    (r" > (\S+)", "（大于 {}）"),
    (r" < (\S+)", "（小于 {}）"),
    (r" that's a multiple of (\S+)", "（{} 的倍数）"),
    (r" with at least (\d+) items?", "（至少 {} 项）"),
)
"""What msgspec says of a value's bounds behind its kind."""


def explain_bounds(text: str) -> str:
    """The bounds of a value that the schema library names behind the value's kind, such as ` >= 1`."""
    for pattern, chinese in _SCHEMA:
        if match := re.fullmatch(pattern, text, re.DOTALL):
            return say(chinese.format(*match.groups()), text)
    return text


_YAML: Sequence[tuple[str, str]] = (
    (r"did not find expected node content", "此处应有内容"),
    (r"did not find expected ',' or ('.')", "缺少逗号或 {}"),
    (r"did not find expected '-' indicator", "缺少 '-'；列表与键值对不能在同一层混写"),
    (r"did not find expected tag URI", "以 ! 开头的值要加引号"),
    (r"did not find expected alphabetic or numeric character", "以 & 或 * 开头的值要加引号"),
    (r"did not find (?:the )?expected ('.*')", "缺少 {}"),
    (r"did not find expected key", "此处应为键"),
    (r"did not find expected <document start>", "此处应为文件开头"),
    (r"could not find expected ('.*')", "缺少 {}"),
    (r"mapping values are not allowed (?:here|in this context)", "此处不能再有“键：值”，是否少了换行或引号"),
    (r"found character ('.*') that cannot start any token", "{} 不能出现在开头（缩进请用空格，不用制表符）"),
    (
        r"found character that cannot start any token",
        "此处的字符不能出现在开头：缩进请用空格，不用制表符；以 @、` 或 % 开头的值要加引号",
    ),
    (r"block sequence entries are not allowed .*", "此处不能有列表项 '-'，是否少了换行"),
    (r"but found another document", "一个文件只能有一份内容，请去掉中间的 ---"),
    (r"unacceptable character (\S+): .*", "含有控制字符 {}，请删去"),
    (r"found a tab character .*", "缩进请用空格，不用制表符"),
    (r"found unexpected end of stream", "文件在引号或括号中结束"),
    (r"found unexpected (\S+)", "意外的 {}"),
    (r"found undefined alias.*", "引用了没有定义的别名"),
    (r"found unknown escape character ?(.*)", "无法识别的转义字符 {}"),
    (r"expected <block end>, but found (.*)", "缩进或结构有误，遇到 {}"),
    (r"expected the node content, but found (.*)", "此处应有内容，遇到 {}"),
    (r"expected ',' or '(.)', but got (.*)", "缺少逗号或 {}，遇到 {}"),
    (r"while scanning .*", "读不下去"),
)
"""What the YAML parser says is wrong at a line."""


def explain_yaml(problem: str | None) -> str:
    """What is wrong with a text that is no YAML."""
    problem = problem or ""
    for pattern, chinese in _YAML:
        if match := re.fullmatch(pattern, problem, re.DOTALL):
            return say(chinese.format(*match.groups()), problem)
    return say(f"读不下去（{problem}）", problem)
