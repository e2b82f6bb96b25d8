"""Every file of deploy/grafana that is made by code."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from agent.language import Language, speaking
from dashboards import asset, continuity, indicator, isolation, lines, pipeline, provisioning, readiness
from dashboards.names import indicators

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"
LANGUAGES: Sequence[Language] = ("zh", "en")

PAGES: Mapping[str, Callable[[], Dashboard]] = {
    "readiness": readiness.build,
    "data-availability": lambda: indicator.build(indicators()[0]),
    "network-security": lambda: indicator.build(indicators()[1]),
    "asset": asset.build,
    "isolation": isolation.build,
    "continuity": continuity.build,
    "lines": lines.build,
    "pipeline": pipeline.build,
}
"""File -> what builds it."""


def made() -> Mapping[str, str]:
    """Path below FOLDER -> its content."""
    texts = dict(provisioning.files())
    for language in LANGUAGES:
        with speaking(language):
            for name, build in PAGES.items():
                texts[f"dashboards/{language}/{name}.json"] = _json(build())
    return texts


def _json(page: Dashboard) -> str:
    return json.dumps(page, cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
