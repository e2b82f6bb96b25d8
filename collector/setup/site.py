"""What a site is: its name, the host that its agents dial, its ports; kept in `made.json`, written before anything else."""

from pathlib import Path
from typing import Literal

import msgspec

from agent.errors import WrongCall
from agent.language import say
from collector.setup.placing import Damaged, read_text

MADE = "made.json"

AUTHORITY, AUTHORITY_KEY = "ca/ca.pem", "ca/ca.key"
BROKER, BROKER_KEY = "mosquitto/certs/broker.pem", "mosquitto/certs/broker.key"
PASSWORDS, RIGHTS, BROKER_CONF = (
    "mosquitto/infravitals.passwords",
    "mosquitto/infravitals.acl",
    "mosquitto/mosquitto.conf",
)
BROKER_PID = "mosquitto/mosquitto.pid"
COLLECTOR = "collector/collector.yaml"
COLLECTOR_PASSWORD = "collector/credentials/broker-password"  # noqa: S105 - the name of a file
STORE_SECRET = {"1": "collector/credentials/influx-password", "2": "collector/credentials/influx-token"}
PAGE_PASSWORD, METRICS_TOKEN = "collector/page.password", "collector/credentials/metrics-token"
PAGE, PAGE_KEY = "collector/page.pem", "collector/page.key"
INFLUX_ADMIN, INFLUX_ADMIN_TOKEN = "influxdb/admin.password", "influxdb/admin.token"
GRAFANA_ADMIN, GRAFANA_READER = "grafana/admin.password", "grafana/influx.password"
DATABASE, INFLUX_USER, GRAFANA_USER, INFLUX_ADMIN_USER = "infravitals", "infravitals", "grafana", "admin"

InfluxVersion = Literal["1", "2"]


class NoSite(WrongCall):
    """The folder holds no site, another one, or something else."""


class SiteMade(msgspec.Struct, frozen=True, kw_only=True):
    """What was said when the site was made. hosts: names and addresses of the broker and the page, the first is dialled.

    data: where programs keep what they gather; owner: the user that the broker becomes when root starts it.
    """

    site: str
    hosts: tuple[str, ...]
    broker_port: int = 8883
    broker_address: str = "0.0.0.0"  # noqa: S104 - agents come from other machines
    influx: InfluxVersion = "1"
    influx_port: int = 8086
    grafana_port: int = 3000
    page_address: str = "127.0.0.1"
    page_port: int = 8650
    data: str = "data"
    owner: str = "root"
    title: str = ""

    @property
    def certified(self) -> list[str]:
        """The names and addresses that the certificates of broker and page stand for."""
        return list(dict.fromkeys([*self.hosts, "localhost", "127.0.0.1"]))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The files of the passwords and tokens that the site is made with, beside those of its agents."""
        store = STORE_SECRET["1"] if self.influx == "1" else INFLUX_ADMIN_TOKEN
        return (COLLECTOR_PASSWORD, PAGE_PASSWORD, METRICS_TOKEN, INFLUX_ADMIN, GRAFANA_ADMIN, GRAFANA_READER, store)


def find_site(folder: Path) -> SiteMade:
    """The site that a folder holds. Raises NoSite or CannotPlace."""
    path = folder / MADE
    if not path.exists():
        raise NoSite(
            say(
                f"{folder} 中没有站点；请先运行 infravitals site init --dir {folder} --name 名称",
                f"there is no site in {folder}; run infravitals site init --dir {folder} --name NAME first",
            )
        )
    try:
        return msgspec.json.decode(read_text(path), type=SiteMade)
    except (msgspec.DecodeError, Damaged) as error:
        raise NoSite(
            say(
                f"{path} 不是本程序写的那样({error})；请从备份恢复",
                f"{path} is not as this program wrote it ({error}); restore it from a backup",
            )
        ) from error


def data_folder(folder: Path, made: SiteMade) -> Path:
    """Where the programs of a site keep their data."""
    return folder.absolute() / made.data
