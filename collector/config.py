"""collector.yaml: whose points this collector takes, from which broker, into which store. Reading it opens nothing."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from agent.broker import Broker, Secret, Tls
from agent.catalogue import explain_id, is_host_name, is_id
from agent.documents import Document, FileMistakes, Mistake, find_mistakes, nearest, read_document
from agent.language import say
from agent.logs import LogConfig
from agent.relative_paths import resolve_paths
from agent.secret_check import Named, secrets_in
from collector.page_password import is_hash
from collector.site_times import explain_zone, find_zone
from collector.stores import load_store
from collector.stores import names as store_names

DEFAULT_DIRECTORY = "/var/lib/infravitals"
DEFAULT_ZONE = "Asia/Shanghai"
DEFAULT_GROUP = "infravitals"

Name = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]


LOOPBACK = ("127.0.0.1", "localhost")


def is_host(text: str) -> bool:
    """Whether this can be a host's name, or is an address; 300.1.1.1 is neither, and no name has a colon."""
    if re.fullmatch(r"[0-9.]+", text) or ":" in text:
        try:
            ipaddress.ip_address(text)
        except ValueError:
            return False
    return is_host_name(text) and re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", text) is not None


class PageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the page is served, and who may see it: beyond the loopback only with a password and TLS, or behind a proxy.

    names: hosts that it answers to. password_scrypt: the password's hash, as `site init` writes it. metrics_token: what
    Prometheus shows. behind_proxy: a proxy in front of it asks who comes.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8650
    names: tuple[str, ...] = ()
    password_scrypt: str | None = None
    metrics_token: Secret | None = None
    tls: Tls | None = None
    behind_proxy: bool = False


_IN_MEMORY = ":memory:"


class CollectorFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file as a person writes it; beyond `kind` the store's section is checked by the store's own `Config`."""

    site: str
    broker: Broker
    data_directory: str = DEFAULT_DIRECTORY
    store: dict[str, Any] = msgspec.field(default_factory=lambda: {"kind": "duckdb"})
    share_group: Name = DEFAULT_GROUP
    receive_maximum: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 64
    page: PageConfig = PageConfig()
    rules_directory: str | None = None
    site_folder: str | None = None
    time_zone: str = DEFAULT_ZONE
    log: LogConfig = LogConfig()


@dataclass(frozen=True, slots=True)
class StoreSection:
    """Which store, and its own `Config`; a relative `path` in it is below the data directory."""

    kind: str
    config: Any

    def secrets(self) -> list[Secret]:
        """What the store's own keys refer to of tokens and passwords."""
        values = (getattr(self.config, name) for name in self.config.__struct_fields__)
        return [value for value in values if isinstance(value, Secret)]


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """A configuration without mistakes; relative directories are taken from where the file stands.

    rules_directory: None means the shipped rules. site_folder: None means that there is none.
    """

    file: Path
    site: str
    broker: Broker
    data_directory: Path
    store: StoreSection
    share_group: str
    receive_maximum: int
    page: PageConfig
    rules_directory: Path | None
    site_folder: Path | None
    time_zone: str
    log: LogConfig

    def secrets(self) -> list[Named]:
        """Every secret that the file names, by its key: what `check`, the doctor and `site status` look at."""
        parts = {"broker": self.broker, "store": self.store.config, "page": self.page}
        return [one for key, part in parts.items() for one in secrets_in(part, key)]


def read_config(path: Path) -> CollectorConfig:
    """The configuration in `path`. Raises FileMistakes with all mistakes."""
    document = read_document(path)
    mistakes = sorted(_find_mistakes(document), key=lambda mistake: mistake.line)
    if mistakes:
        raise FileMistakes(mistakes)
    return _settle(resolve_paths(msgspec.convert(document.value, CollectorFile), path.parent), path)


def _settle(file: CollectorFile, path: Path) -> CollectorConfig:
    folder = path.parent
    directory = folder / file.data_directory
    return CollectorConfig(
        file=path,
        site=file.site,
        broker=file.broker,
        data_directory=directory,
        store=_settle_store(file.store, folder, directory),
        share_group=file.share_group,
        receive_maximum=file.receive_maximum,
        page=file.page,
        rules_directory=folder / file.rules_directory if file.rules_directory else None,
        site_folder=folder / file.site_folder if file.site_folder else None,
        time_zone=file.time_zone,
        log=file.log,
    )


def _settle_store(section: Mapping[str, Any], folder: Path, directory: Path) -> StoreSection:
    config = resolve_paths(msgspec.convert(_without_kind(section), load_store(section["kind"]).Config), folder)
    place = getattr(config, "path", None)
    if isinstance(place, str) and place != _IN_MEMORY:
        config = msgspec.structs.replace(config, path=str(directory / place))
    return StoreSection(section["kind"], config)


def _find_mistakes(document: Document) -> Iterator[Mistake]:
    yield from find_mistakes(document, document.value, CollectorFile)
    if not isinstance(document.value, dict):
        return
    site, zone = document.value.get("site"), document.value.get("time_zone")
    if isinstance(site, str) and not is_id(site):
        yield document.mistake(("site",), explain_id("site", site))
    if isinstance(zone, str) and find_zone(zone) is None:
        yield document.mistake(("time_zone",), explain_zone(zone))
    page = document.value.get("page")
    if isinstance(page, dict):
        yield from _find_page_mistakes(document, page)
    yield from _find_store_mistakes(document, document.value.get("store"))


def _find_page_mistakes(document: Document, page: Mapping[str, object]) -> Iterator[Mistake]:
    host, kept, tls = page.get("host"), page.get("password_scrypt"), page.get("tls")
    if isinstance(kept, str) and not is_hash(kept):
        text = say(
            "'password_scrypt' 应是 infravitals site init 写出的散列，不是密码本身",
            "'password_scrypt' is the hash that infravitals site init writes, never the password itself",
        )
        yield document.mistake(("page", "password_scrypt"), text)
    if isinstance(tls, dict) and not (tls.get("certificate") and tls.get("key")):
        text = say("网页的 tls 要有 certificate 与 key", "the page's tls needs certificate and key")
        yield document.mistake(("page", "tls"), text)
    if isinstance(host, str) and not is_host(host):
        text = say(f"'host'：'{host}' 不是主机名或地址", f"'host': '{host}' is no host name or address")
        yield document.mistake(("page", "host"), text)
        return
    is_guarded = bool(kept and tls) or page.get("behind_proxy") is True
    if isinstance(host, str) and host not in LOOPBACK and not is_guarded:
        text = say(
            f"'host'：要在 '{host}' 提供页面，须有密码与证书(password_scrypt、tls，由 infravitals site init 写出)，或由代理把门(behind_proxy: true)；否则只能是 127.0.0.1",
            f"'host': on '{host}' the page needs a password and a certificate (password_scrypt and tls, as infravitals site init writes them), or a proxy that asks who comes (behind_proxy: true); else it is 127.0.0.1",
        )
        yield document.mistake(("page", "host"), text)


def _find_store_mistakes(document: Document, section: object) -> Iterator[Mistake]:
    if not isinstance(section, dict):
        return
    kind = section.get("kind")
    if kind is None:
        yield document.mistake(("store",), say("缺少键 'kind'", "key 'kind' is missing") + nearest("", store_names()))
        return
    try:
        module = load_store(str(kind))
    except KeyError:
        text = say(f"未知的存储 '{kind}'", f"unknown store '{kind}'") + nearest(str(kind), store_names())
        yield document.mistake(("store", "kind"), text)
    except ModuleNotFoundError as error:
        text = say(
            f"存储 '{kind}' 需要 Python 包 '{error.name}'，请先安装",
            f"store '{kind}' needs the Python package '{error.name}'; install it",
        )
        yield document.mistake(("store", "kind"), text)
    else:
        yield from find_mistakes(document, _without_kind(section), module.Config, ("store",))


def _without_kind(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "kind"}


def sample() -> str:
    """A commented collector.yaml in the reader's language; it passes its own check."""
    return say(_SAMPLE_ZH, _SAMPLE_EN)


_SAMPLE_ZH = f"""\
# infravitals serve 的配置。以 # 开头、后面是键的行可省略，写出的是缺省值或例子；要改时去掉 #

# 站点(医院)的名称：小写字母、数字、连字符；与各采集代理的 site 相同
site: my-hospital

# 消息服务器(MQTT)
broker:
  # 主机名或地址
  host: 127.0.0.1
  # 端口；缺省为 8883(TLS)或 1883
  # port: 8883
  # TLS:ca 为签发者证书(缺省用系统的),certificate 与 key 为客户端证书
  # tls: {{ca: /etc/infravitals/ca.pem}}
  # 用户名
  # username: collector
  # 密码存放处，file、env、credential 三选一；不写密码本身
  # password: {{file: /etc/infravitals/broker.password}}
  # 多少秒无往来即探测连接
  # keepalive_seconds: 30
  # 连接的时限(秒)
  # connect_timeout_seconds: 10

# 同一组的采集中心分担数据，每批只由其中一个接收；组名要别人猜不到，见 docs/broker.md
# share_group: infravitals

# 最多多少批可以已收到而尚未入库；到此为止，其余留在采集代理的缓存中
# receive_maximum: 64

# 数据目录：存储、隔离区、命令套接字；须可写
# data_directory: {DEFAULT_DIRECTORY}

# 存储；kind 以外的键由各存储自己规定，path 为相对路径时在数据目录之下；InfluxDB 见 docs/influxdb.md
# store: {{kind: duckdb, path: infravitals.duckdb, memory_bytes: 2147483648}}

# 网页；127.0.0.1 之外须有密码与证书(infravitals site init 会写好)，或 behind_proxy: true，见 docs/site.md
# 其中 names: 页面的主机名；tls: {{certificate, key}};password_scrypt: 密码的散列；metrics_token: 抓取 /metrics 的令牌存放处
# page: {{host: 127.0.0.1, port: 8650, behind_proxy: false}}

# 评分规则的目录；缺省为随程序提供的规则
# rules_directory: /etc/infravitals/rules

# 站点目录：登记、证明、豁免、维护、日历，见 docs/site-folder.md
# site_folder: /etc/infravitals/site

# 站点所在时区，决定一天从何时开始；站点目录的 site.yaml 写明时以它为准
# time_zone: {DEFAULT_ZONE}

# 日志，写到标准错误；level 为 debug、info、warning 或 error,format 为 line(给人看)或 json
# log: {{level: info, format: line}}
"""

_SAMPLE_EN = f"""\
# Configuration of infravitals serve. Keys behind a # are optional and show a default or an example; take the # away to set one

# name of the site (hospital): small letters, digits, hyphens; the same as in its agents' files
site: my-hospital

# the message broker (MQTT)
broker:
  # its host name or address
  host: 127.0.0.1
  # its port; by default 8883 with TLS, else 1883
  # port: 8883
  # TLS: ca who signed its certificate (by default the system's list), certificate and key for the client
  # tls: {{ca: /etc/infravitals/ca.pem}}
  # the user
  # username: collector
  # where the password stands: one of file, env, credential; never the password itself
  # password: {{file: /etc/infravitals/broker.password}}
  # how long silence lasts before the connection is probed
  # keepalive_seconds: 30
  # how long connecting may take, in seconds
  # connect_timeout_seconds: 10

# collectors of one group share the data: each batch goes to one of them; a name that nobody guesses, see docs/broker.md
# share_group: infravitals

# how many batches may be here and not stored yet; beyond it they stay in the agents' spools
# receive_maximum: 64

# the store, the quarantine and the command socket live here; must be writable
# data_directory: {DEFAULT_DIRECTORY}

# the store; keys beside kind are its own, a relative path is below the data directory; InfluxDB: see docs/influxdb.md
# store: {{kind: duckdb, path: infravitals.duckdb, memory_bytes: 2147483648}}

# the page; beyond 127.0.0.1 with a password and a certificate (infravitals site init writes them), or behind_proxy: true, see docs/site.md
# also names: its host names; tls: {{certificate, key}}; password_scrypt: the password's hash; metrics_token: where the token for /metrics stands
# page: {{host: 127.0.0.1, port: 8650, behind_proxy: false}}

# the rules; by default the shipped ones
# rules_directory: /etc/infravitals/rules

# the site folder: register, attestations, exemptions, maintenance, calendars, see docs/site-folder.md
# site_folder: /etc/infravitals/site

# the site's time zone: where a day begins; what the site folder's site.yaml says goes before
# time_zone: {DEFAULT_ZONE}

# the log, on stderr; level is debug, info, warning or error, format is line (for people) or json
# log: {{level: info, format: line}}
"""
