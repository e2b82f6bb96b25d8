"""What an InfluxDB server refuses, as one sentence that says what to do. No I/O."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from agent.language import say

FIRST_WAIT_SECONDS = 1.0


class Refused(Exception):
    """An answer that is no success; `text` is what the server says in its own words."""

    def __init__(self, status: int, body: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.text = status, _complaint(body)
        self._after = (headers or {}).get("Retry-After")

    def wait_seconds(self) -> float | None:
        """How long the server wants us to wait; None when it does not want us back."""
        if self.status not in (429, 503):
            return None
        if self._after is not None and self._after.strip().isdecimal():
            return float(self._after)
        return FIRST_WAIT_SECONDS if self.status == 429 else None

    @property
    def is_definite(self) -> bool:
        """Whether it is of single points, of which the same would be said for ever, while the others were taken.

        Other partial writes (too many series) end when somebody changes the server's configuration.
        """
        return any(found in self.text for found in ("field type conflict", "beyond retention policy"))

    def explain(self, database: str) -> str:
        """One sentence: what was wrong, and what to do."""
        if self.is_definite:
            return _explain_points(self.text)
        for found, zh, en in _COMPLAINTS:
            if found in self.text:
                return say(zh.format(database), en.format(database))
        if self.status in _STATUS:
            zh, en = _STATUS[self.status]
            return say(zh.format(database), en.format(database))
        if self.status >= 500:
            return say(
                f"服务器出错(HTTP {self.status})：{self.text}",
                f"the server is in trouble (HTTP {self.status}): {self.text}",
            )
        return say(f"拒绝(HTTP {self.status})：{self.text}", f"refuses (HTTP {self.status}): {self.text}")


_CONFLICT = re.compile(r'input field \\?"(?P<field>[^"\\]*)\\?" on measurement \\?"(?P<measurement>[^"\\]*)\\?"')


def _explain_points(text: str) -> str:
    conflict = _CONFLICT.search(text)
    if conflict is not None:
        name = f"{conflict['measurement']}.{conflict['field']}"
        return say(
            f"字段 {name} 在库中已是另一种类型，这些点写不进去；请查出是谁以别的类型写入，并换库或删除该字段的旧数据",
            f"field {name} has another type in the database, these points cannot be written; find who wrote it so, and change the database or delete that field's old data",
        )
    return say(
        "有点早于该库的保留期限，写不进去；本程序自己按目录清理，请把库的保留期限设为无限",
        "points are older than the database's retention and cannot be written; this program prunes by the catalogue, so let the retention be infinite",
    )


class _Complaint(msgspec.Struct):
    error: str = ""
    message: str = ""


def _complaint(body: str) -> str:
    """What the server says in its own words: `error` on 1.x, `message` on 2.x."""
    try:
        said = msgspec.json.decode(body, type=_Complaint)
    except msgspec.DecodeError:
        return " ".join(body.split())[:200]
    return said.message or said.error or body[:200]


_STATUS: Mapping[int, tuple[str, str]] = {
    401: (
        "令牌或用户名密码不对；请检查 store 的 token，或 user 与 password",
        "the token, or the user and password, are wrong; look at the store's token, or its user and password",
    ),
    403: (
        "没有读写 {} 的权限；请授予该令牌或用户读写权限",
        "no right to read and write {}; grant this token or user both",
    ),
    404: ("找不到库 {}；请先创建它", "there is no database or bucket {}; make it first"),
    413: ("一次写入过大；请提高服务器的 max-body-size", "the write is too large; raise the server's max-body-size"),
    429: ("服务器忙，要求稍后再来", "the server is busy and asks to come later"),
}
_COMPLAINTS: Sequence[tuple[str, str, str]] = (
    ("database not found", *_STATUS[404]),
    ("bucket not found", *_STATUS[404]),
    ("could not find bucket", *_STATUS[404]),
    (
        "no space left",
        "服务器的磁盘已满；请腾出空间，若 InfluxDB 1.x 仍拒绝写入则重启它",
        "the server's disk is full; make room, and restart InfluxDB 1.x if it goes on refusing",
    ),
    ("not authorized", *_STATUS[403]),
    ("authorization failed", *_STATUS[401]),
    (
        "max-series-per-database",
        "序列数已达该库的上限，新的对象写不进去；请提高服务器的 max-series-per-database",
        "the database holds as many series as it may, new ones cannot be written; raise the server's max-series-per-database",
    ),
    (
        "max-values-per-tag",
        "某个标签的取值数已达上限，新的对象写不进去；请提高服务器的 max-values-per-tag",
        "a tag has as many values as it may, new ones cannot be written; raise the server's max-values-per-tag",
    ),
    (
        "exceed file limit",
        "InfluxDB 3 拒绝这么长的时间窗口；请用 1.6 至 2.x，或提高它的 query-file-limit",
        "InfluxDB 3 refuses so long a window; use 1.6 to 2.x, or raise its query-file-limit",
    ),
)
"""What the server's text holds, and what a person reads then; the first that fits."""
