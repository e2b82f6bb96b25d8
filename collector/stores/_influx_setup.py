"""Makes what an InfluxDB store needs in its server: the database or bucket, and the rights of its user."""

from collections.abc import Iterator
from typing import NamedTuple

from agent.errors import StoreError
from agent.language import say
from collector.stores._influx_http import Door, Place
from collector.stores._influx_records import BATCH
from collector.stores._influx_text import value_text


class Admin(NamedTuple):
    """Who may make databases, where that is not the store's own user."""

    user: str | None = None
    password: str | None = None
    token: str | None = None


class DatabaseReader(NamedTuple):
    """Who may read the database and no more (1.x)."""

    user: str
    password: str


def set_up(
    place: Place, admin: Admin | None, *, first: bool = False, reader: DatabaseReader | None = None
) -> Iterator[str]:
    """Does what is missing, and says of each thing whether it was there; changes nothing that is there but the rights.

    first: make the administrator too, which a server of 1.x lets anybody do while it has no user. reader: one more user.
    Raises StoreError when the server is away, refuses, or keeps for a limited time only.
    """
    if first and admin is not None:
        yield from _administrator(place, admin)
    acting = place._replace(user=admin.user, password=admin.password, token=admin.token) if admin else place
    try:
        with Door(acting) as door:
            yield from _bucket(door) if place.is_bucket else _database(door, place)
            if reader is not None:
                yield from _user(door, reader.user, reader.password, "READ")
    except StoreError as error:
        if admin is not None:
            raise
        zh = "还没有库和用户时，请用 --admin-user 与 --admin-password-file(2.x:--admin-token-file)给出管理员"
        en = "before there is a database and a user, name an administrator: --admin-user, --admin-password-file (2.x: --admin-token-file)"
        raise StoreError(f"{error}; {say(zh, en)}") from error
    with Door(place) as own:
        for _ in own.ask([f'SELECT last("seq") FROM "{BATCH}"']):  # noqa: S608  # a name of our own
            pass
        own.write([])
    name = place.database
    yield say(f"{name}：可读可写", f"{name}: can be read and written")


def _bucket(door: Door) -> Iterator[str]:
    name = door.place.database
    found = door.find_bucket()
    if found is None:
        door.make_bucket()
        yield say(f"已创建桶 {name}，永久保留", f"bucket {name} made, kept for good")
        return
    if found:
        raise StoreError(_limited(door.place))
    yield say(f"桶 {name} 已存在", f"bucket {name} was there")


def _database(door: Door, place: Place) -> Iterator[str]:
    name = place.database
    if name in _first_words(door, "SHOW DATABASES"):
        yield say(f"库 {name} 已存在", f"database {name} was there")
    else:
        _run(door, f"CREATE DATABASE {_quoted(name)}")
        yield say(f"已创建库 {name}，永久保留", f"database {name} made, kept for good")
    for rows in door.ask([f"SHOW RETENTION POLICIES ON {_quoted(name)}"]):
        for policy in (dict(zip(rows.columns, values, strict=True)) for values in rows.values):
            if policy["default"] and policy["duration"] != "0s":
                raise StoreError(_limited(place))
    if place.user is not None and place.user != door.place.user:
        yield from _user(door, place.user, place.password or "", "ALL")


def _administrator(place: Place, admin: Admin) -> Iterator[str]:
    """The first user of a server of 1.x, which has to be one who may do everything."""
    user, password = _quoted(admin.user or ""), value_text(admin.password or "")
    try:
        with Door(place._replace(user=admin.user, password=admin.password)) as door:
            _first_words(door, "SHOW USERS")
    except StoreError:
        with Door(place._replace(user=None, password=None)) as door:
            _run(door, f"CREATE USER {user} WITH PASSWORD {password} WITH ALL PRIVILEGES")
        yield say(f"已创建管理员 {admin.user}", f"administrator {admin.user} made")


def _user(door: Door, user: str, password: str, right: str) -> Iterator[str]:
    if user in _first_words(door, "SHOW USERS"):
        yield say(f"用户 {user} 已存在", f"user {user} was there")
    else:
        _run(door, f"CREATE USER {_quoted(user)} WITH PASSWORD {value_text(password)}")
        yield say(f"已创建用户 {user}", f"user {user} made")
    name = door.place.database
    _run(door, f"GRANT {right} ON {_quoted(name)} TO {_quoted(user)}")
    if right == "ALL":
        yield say(f"用户 {user} 可读写 {name}", f"user {user} may read and write {name}")
    else:
        yield say(f"用户 {user} 只可读 {name}", f"user {user} may read {name} and no more")


def _limited(place: Place) -> str:
    text = say(
        f"{place.database} 的保留期限有限，评分和对象会丢失；请把它设为无限",
        f"{place.database} is kept for a limited time, scorecards and subjects would be lost; let its retention be infinite",
    )
    return f"{place.url}: {text}"


def _first_words(door: Door, statement: str) -> set[str]:
    return {str(values[0]) for rows in door.ask([statement]) for values in rows.values}


def _run(door: Door, statement: str) -> None:
    for _ in door.ask([statement]):
        pass


def _quoted(name: str) -> str:
    text = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
