"""What a scorecard leaves for whoever draws courses and chooses assets: Grafana, beside the body that is the evidence."""

from collector.history import assets_of
from collector.site_folder import Entry, SiteFolder
from collector.stores import DrawnAsset

NOW = 1_764_000_000_000


def test_assets_are_those_of_the_register_that_are_there_and_those_that_only_report() -> None:
    entries = {
        "core-1": Entry("core-1", "assets", {"zone": ("core",), "class": ("switch",), "role": ("core", "uplink")}),
        "gone-1": Entry("gone-1", "assets", {"zone": ("core",)}, until=NOW),
        "due-1": Entry("due-1", "assets", {}, since=NOW + 1),
    }
    folder = SiteFolder(has_register=True, entries={"assets": entries})
    assert assets_of(folder, {"core-1": "gw-1", "gone-1": "gw-1", "stranger": "gw-2"}, NOW) == [
        DrawnAsset("core-1", {"class": "switch", "zone": "core"}, True),
        DrawnAsset("stranger", {}, False),
    ]


def test_without_a_register_every_asset_that_reported_is_drawn() -> None:
    assert assets_of(SiteFolder(), {"his-1": "his-1"}, NOW) == [DrawnAsset("his-1", {}, False)]
