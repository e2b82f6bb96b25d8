"""The users of a site's own InfluxDB 1.x: its administrator, the collector, and Grafana, which may only read."""

from collections.abc import Iterator
from pathlib import Path

from agent.language import say
from collector.config import read_config
from collector.setup import site as at
from collector.setup.broker_users import read_secret
from collector.setup.site import SiteMade
from collector.stores._influx_setup import Admin, DatabaseReader
from collector.stores.influxdb import set_up


def make_database(folder: Path, made: SiteMade) -> Iterator[str]:
    """Make what is missing and say of each thing whether it was there. Raises StoreError while the server is away."""
    if made.influx == "2":
        yield say(
            "InfluxDB 2 的桶与身份由它的容器第一次启动时建好(deploy/compose/influxdb-init.sh)，这里没有要做的",
            "the bucket and identities of InfluxDB 2 are made by its container's first start (deploy/compose/influxdb-init.sh); nothing to do here",
        )
        return
    admin = Admin(at.INFLUX_ADMIN_USER, read_secret(folder / at.INFLUX_ADMIN))
    reader = DatabaseReader(at.GRAFANA_USER, read_secret(folder / at.GRAFANA_READER))
    yield from set_up(read_config(folder / at.COLLECTOR).store.config, admin, first=True, reader=reader)
