"""How tests reach their InfluxDB: the configuration of the store that the collector would have."""

from servers import Influx

from agent.broker import Secret
from collector.stores.influxdb import Config


def config_of(influx: Influx, database: str, timeout_seconds: float = 60.0) -> Config:
    """The store's configuration for a database of a running server; the password stands in a file."""
    password = influx.folder / "password"
    password.write_text(f"{influx.ADMIN[1]}\n", "utf-8")
    return Config(
        url=influx.url,
        database=database,
        user=influx.ADMIN[0],
        password=Secret(file=str(password)),
        timeout_seconds=timeout_seconds,
    )
