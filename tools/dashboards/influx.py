"""InfluxQL as Grafana holds it: the query of a panel, of a variable and of an alert rule. The SDK has no type of its own for it."""

from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

DATASOURCE_UID = "infravitals"
DATASOURCE_TYPE = "influxdb"

Format = Literal["time_series", "table"]

SITE = "\"site\" = '$site'"
"""The condition of every panel: one site, chosen by the variable."""


def over_time(take: str, field: str, measurement: str, *tags: str, where: str = SITE) -> str:
    """A value for each span of a course, one line for each set of these tags; spans without points stay empty."""
    groups = "".join(f', "{tag}"' for tag in tags)
    return (
        f'SELECT {take}("{field}") FROM "{measurement}" WHERE {where} AND $timeFilter'
        f" GROUP BY time($__interval){groups} fill(none)"
    )


def datasource() -> DataSourceRef:
    """The one data source, by its uid."""
    return DataSourceRef(DATASOURCE_TYPE, DATASOURCE_UID)


@dataclass(frozen=True)
class InfluxQuery(Dataquery):
    """One statement of InfluxQL. alias: what a series is called, with `[[tag_x]]` for the value of tag x."""

    text: str
    ref_id: str
    result_format: Format
    alias: str = ""

    def to_json(self) -> dict[str, object]:
        """As Grafana's InfluxDB data source reads it."""
        payload: dict[str, object] = {
            "datasource": datasource(),
            "query": self.text,
            "rawQuery": True,
            "refId": self.ref_id,
            "resultFormat": self.result_format,
        }
        if self.alias:
            payload["alias"] = self.alias
        return payload


@dataclass(frozen=True)
class InfluxQueryBuilder(Builder[Dataquery]):
    """What the SDK's alerting builders want to be given."""

    query: InfluxQuery

    def build(self) -> Dataquery:
        return self.query


def one_of(tag: str, values: tuple[str, ...]) -> str:
    """The condition that a tag has one of these values, ids without any sign that a pattern knows but the dot."""
    pattern = "|".join(value.replace(".", "\\.") for value in values)
    return f'"{tag}" =~ /^({pattern})$/'
