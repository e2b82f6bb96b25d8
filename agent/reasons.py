"""Why a collector sets something aside: a closed set of stable codes, each with its sentence and what to do about it.

Both ends read it: the collector counts by these codes, a receipt carries them, the agent says what they mean.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal, NamedTuple

from agent.catalogue import Text

MOST_TAG_CHARACTERS = 200
MOST_LABEL_CHARACTERS = 256
MOST_ASSETS = 5_000
"""Assets that one agent may claim unasked: a gateway has many, but one that is broken or stolen makes them without end."""


class Reason(StrEnum):
    """The codes; they are counter keys and never change."""

    UNDECODABLE = "undecodable"
    TOO_LARGE = "too_large"
    BAD_HEADER = "bad_header"
    STORE_REFUSES = "store_refuses"
    BAD_DROPPED = "bad_dropped"
    MALFORMED_POINT = "malformed_point"
    UNKNOWN_MEASUREMENT = "unknown_measurement"
    UNKNOWN_TAG = "unknown_tag"
    BAD_TAG = "bad_tag"
    TAG_NOT_LISTED = "tag_not_listed"
    BAD_ASSET = "bad_asset"
    NOT_YOURS = "not_yours"
    TOO_MANY_ASSETS = "too_many_assets"
    TOO_EARLY = "too_early"
    TOO_LATE = "too_late"
    NO_FIELD = "no_field"
    UNKNOWN_FIELD = "unknown_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    BAD_LABEL = "bad_label"


Scope = Literal["batch", "dropped", "point", "field"]


class Meaning(NamedTuple):
    """What a reason sets aside, and why, as a person reads it; remedy: what whoever runs the agent can do."""

    scope: Scope
    text: Text
    remedy: Text = Text(
        "内容见采集中心的 infravitals quarantine", "`infravitals quarantine` on the collector shows what"
    )


MEANINGS: Mapping[Reason, Meaning] = {
    Reason.UNDECODABLE: Meaning("batch", Text("整批无法解码", "the batch cannot be decoded")),
    Reason.TOO_LARGE: Meaning("batch", Text("整批过大，请减小批次", "the batch is too large; send smaller ones")),
    Reason.BAD_HEADER: Meaning(
        "batch",
        Text("批次的 boot、seq 或时间不合法", "the batch's boot, seq or time is not possible"),
    ),
    Reason.STORE_REFUSES: Meaning(
        "batch",
        Text("存储反复拒绝这一批，却接受其他批次", "the store refuses this batch again and again and takes others"),
    ),
    Reason.BAD_DROPPED: Meaning(
        "dropped", Text("丢弃公告不合法", "the announcement of dropped batches is not possible")
    ),
    Reason.MALFORMED_POINT: Meaning("point", Text("不是数据点", "it is no point")),
    Reason.UNKNOWN_MEASUREMENT: Meaning(
        "point",
        Text(
            "信号目录中没有该测量；采集代理可能比采集中心新",
            "no such measurement in the catalogue; the agent may be newer than the collector",
        ),
        Text("请升级采集中心", "upgrade the collector"),
    ),
    Reason.UNKNOWN_TAG: Meaning("point", Text("该测量没有此标签", "the measurement has no such tag")),
    Reason.BAD_TAG: Meaning(
        "point",
        Text(
            f"标签值为空、超过 {MOST_TAG_CHARACTERS} 个字符或含控制字符",
            f"a tag's value is empty, longer than {MOST_TAG_CHARACTERS} characters or holds control characters",
        ),
    ),
    Reason.TAG_NOT_LISTED: Meaning(
        "point", Text("标签值不在允许的列表中", "the tag's value is not in its closed list")
    ),
    Reason.BAD_ASSET: Meaning(
        "point", Text("缺少 asset 标签或其名称不合法", "the tag asset is missing or cannot be a name")
    ),
    Reason.NOT_YOURS: Meaning(
        "point",
        Text("该资产不归此采集代理上报", "not yours: this agent may not report that asset"),
        Text(
            "资产归最先上报它的采集代理；请检查配置中的 asset 是否与别处重复",
            "an asset belongs to the agent that reported it first; see whether `asset` in the configuration is used twice",
        ),
    ),
    Reason.TOO_MANY_ASSETS: Meaning(
        "point",
        Text(
            f"一个采集代理最多自行带来 {MOST_ASSETS} 个资产，新的资产不再接受",
            f"an agent may bring {MOST_ASSETS} assets of its own; it has them, no new one is taken",
        ),
        Text(
            "请检查 asset 标签是否不断变化，或用多个采集代理分担",
            "see whether the tag asset keeps changing, or share the assets among several agents",
        ),
    ),
    Reason.TOO_EARLY: Meaning(
        "point", Text("时间早于 2020 年：单位是秒？应为毫秒", "a time before 2020: seconds? it must be milliseconds")
    ),
    Reason.TOO_LATE: Meaning(
        "point",
        Text("时间在未来超过 5 分钟", "a time more than 5 minutes in the future"),
        Text("请检查数据来源的时钟", "check the clock that the data come from"),
    ),
    Reason.NO_FIELD: Meaning("point", Text("数据点没有剩下可用的字段", "the point has no usable field left")),
    Reason.UNKNOWN_FIELD: Meaning("field", Text("该测量没有此字段", "the measurement has no such field")),
    Reason.WRONG_TYPE: Meaning("field", Text("字段类型不对", "the field has the wrong type")),
    Reason.NOT_FINITE: Meaning("field", Text("不是有限的数", "not a finite number")),
    Reason.OUT_OF_RANGE: Meaning("field", Text("超出目录规定的范围", "outside the catalogue's range")),
    Reason.BAD_LABEL: Meaning(
        "field",
        Text(
            f"文本超过 {MOST_LABEL_CHARACTERS} 个字符或含控制字符",
            f"a text longer than {MOST_LABEL_CHARACTERS} characters or with control characters",
        ),
    ),
}
