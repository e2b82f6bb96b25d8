"""What `infravitals-agent snmp …` does: look at a device before it is enrolled, record and replay it, check profiles, discover."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from agent.broker import Secret
from agent.catalogue import explain_host_name, is_host_name, load
from agent.commandline import OK
from agent.config import read_config
from agent.documents import FileMistakes, Mistake, nearest, write_document
from agent.errors import SourceError, WrongCall
from agent.foreign_words import explain_system
from agent.language import say
from agent.points import Point
from agent.readings import Settler
from agent.snmp.client import Patience, Session
from agent.snmp.credentials import Credential, Opened
from agent.snmp.device import Device, merge
from agent.snmp.discover import (
    SNMP_PORT,
    Found,
    Search,
    choose_addresses,
    draft_register,
    draft_targets,
    name_new,
    note_enrolled,
)
from agent.snmp.options import DEFAULT_COMMUNITY
from agent.snmp.profile import Profile, emitted, load_profiles, read_profile
from agent.snmp.record import record_walk
from agent.snmp.replay import Device as Replayed
from agent.snmp.replay import serve_replay
from agent.snmp.walkfile import read_walk, write_walk
from agent.sources import Incomplete, Reading
from agent.sources.snmp_device import Config, Target, read_range
from agent.table import render_table
from agent.trial import render_points

SOURCE = "snmp_device"
SECOND_LOOK_SECONDS = 1.0
MOST_LISTED = 20
LOOPBACK = "127.0.0.1"


def _credential(parsed: argparse.Namespace) -> Opened:
    if not parsed.v3:
        return Opened(version="1" if parsed.v1 else "2c", community=parsed.community or DEFAULT_COMMUNITY)

    def place(path: Path | None) -> Secret | None:
        return Secret(file=str(path)) if path else None

    fields = {"version": "3", "user": parsed.v3, "auth": parsed.auth, "auth_password": place(parsed.auth_password)}
    fields |= {"priv": parsed.priv, "priv_password": place(parsed.priv_password)}
    try:
        return msgspec.convert(fields, Credential, from_attributes=True).open()
    except msgspec.ValidationError as error:
        raise WrongCall(str(error)) from error


def _where(text: str, default_port: int = SNMP_PORT) -> tuple[str, int]:
    """host and port of `HOST[:PORT]`, also `[::1]:161`."""
    if text.isdigit():  # the system would take it for an address written as one number
        raise WrongCall(
            say(
                f"'{text}' 不是主机名或地址，请写 'HOST:{text}'",
                f"'{text}' is no host name or address; write 'HOST:{text}'",
            )
        )
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")):
        host, port = text, ""
    if port and not (port.isdigit() and int(port) < 65536):
        raise WrongCall(say(f"'{port}' 不是端口", f"'{port}' is no port"))
    host = host.strip("[]")
    if not is_host_name(host):
        raise WrongCall(explain_host_name("HOST", host))
    return host, int(port) if port else default_port


def _session(parsed: argparse.Namespace) -> Session:
    """The session that the command line asks for."""
    patience = Patience(parsed.timeout, parsed.retries)
    if parsed.config:
        config, _ = _section(parsed.config)
        target = _choose_target(config, parsed)
        parsed.target = target.asset
        return Session(target.host, target.port, config.credential_of(target).open(), patience)
    if not parsed.target:
        raise WrongCall(say("要问哪台设备？请写 HOST[:PORT]", "which device? Write HOST[:PORT]"))
    host, port = _where(parsed.target)
    _say_assumed(parsed)
    return Session(host, port, _credential(parsed), patience)


def _choose_target(config: Config, parsed: argparse.Namespace) -> Target:
    for target in config.targets:
        if parsed.target in (target.asset, target.host) or (parsed.target is None and len(config.targets) == 1):
            return target
    known = ", ".join(target.asset for target in config.targets[:MOST_LISTED]) or "-"
    if parsed.target is None:
        raise WrongCall(say(f"要问哪个目标？配置中有：{known}", f"which target? The configuration has: {known}"))
    text = say(f"配置中没有目标 {parsed.target}", f"the configuration has no target {parsed.target}")
    raise WrongCall(text + nearest(parsed.target, [target.asset for target in config.targets]))


def _say_assumed(parsed: argparse.Namespace) -> None:
    """A community that nobody gave is a guess, and a guess is said."""
    if parsed.v3 or parsed.community:
        return
    version = "v1" if parsed.v1 else "v2c"
    text = say(
        f"没有写凭据：按 {version} 与团体字 {DEFAULT_COMMUNITY} 询问(--community、--v3 或 -c 可改)",
        f"no credential given: asking by {version} with community {DEFAULT_COMMUNITY} (--community, --v3 or -c say otherwise)",
    )
    print(text, file=sys.stderr)


def _section(path: Path) -> tuple[Config, str]:
    """The section of `snmp_device` and the agent's name. Raises WrongCall when there is none."""
    config = read_config(path)
    for section in config.sources:
        if isinstance(section.config, Config):
            return section.config, config.agent
    raise WrongCall(say(f"{path} 没有采集源 {SOURCE}", f"{path} has no source {SOURCE}"))


def try_device(parsed: argparse.Namespace) -> int:
    """Two looks a second apart, so that rates are there; what was seen is shown also of a round that failed."""
    session = _session(parsed)
    names = tuple(parsed.profile) if parsed.profile else None
    known = load_profiles()
    for name in names or ():
        if name not in known:
            text = say(f"没有设备档案 '{name}'", f"there is no profile '{name}'")
            raise WrongCall(text + nearest(name, known))
    device = Device(session, known, time.monotonic, names=names)
    readings, seconds, trouble = asyncio.run(_look_twice(device, parsed.target))
    points = Settler(load(), "device").settle(tuple(readings), round(time.time() * 1000), SOURCE).points
    if parsed.format == "json":
        _print_json(
            {
                "profiles": [one.name for one in device.chosen],
                "object_id": device.object_id,
                "seconds": seconds,
                "points": points,
            }
        )
    elif any(point.name != "poll" for point in points):
        _show(device, points, seconds)  # where nothing was read, the sentence below says all
    if trouble:
        raise trouble
    return OK


async def _look_twice(device: Device, target: str) -> tuple[list[Reading], float, Incomplete | None]:
    """The readings of the second look, what it took, and what went wrong in it."""
    trouble: Incomplete | None = None
    readings: list[Reading] = []
    took = 0.0
    for wait in (0.0, SECOND_LOOK_SECONDS):
        await asyncio.sleep(wait)
        began = time.monotonic()
        try:
            readings, trouble = merge(await device.look(target) + readings), None
        except Incomplete as error:
            readings, trouble = list(error.readings), error
        took = time.monotonic() - began
        if trouble and not device.chosen:
            break
    device.close()
    return readings, took, trouble


def _show(device: Device, points: list[Point], seconds: float) -> None:
    chosen = [(one.name, say(one.file.title.zh, one.file.title.en)) for one in device.chosen]
    print(render_table((say("设备档案", "PROFILE"), say("含义", "MEANING")), chosen))
    print()
    print(render_points(points))
    print()
    count, milliseconds = len(points), round(1000 * seconds)
    kind, where = device.session.credential.kind, device.session.where
    print(
        say(
            f"{where} {kind}：{count} 个数据点，{milliseconds} 毫秒",
            f"{where} {kind}: {count} points in {milliseconds} ms",
        )
    )


def record(parsed: argparse.Namespace) -> int:
    """Walk, scrub, write; nothing touches the disk before it is scrubbed."""
    session = _session(parsed)
    try:
        bindings = asyncio.run(record_walk(session, load_profiles()))
    finally:
        session.close()
    _write(
        parsed.output,
        write_walk(
            bindings, ["recorded by infravitals-agent snmp walk; names, places, addresses and serials are replaced"]
        ),
    )
    count = len(bindings)
    print(say(f"{parsed.output}：{count} 个变量", f"{parsed.output}: {count} variables"))
    return OK


def _write(path: Path, text: str, *, is_new: bool = False) -> None:
    """is_new: what is there already stays: a draft that people went through is not lost to the next one."""
    try:
        with path.open("x" if is_new else "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        text = say(f"{path} 已存在，不会覆盖；请另选文件名", f"{path} is there already and stays; choose another name")
        raise WrongCall(text) from error
    except OSError as error:
        raise WrongCall(
            say(f"无法写入 {path}：{explain_system(error)}", f"cannot write {path}: {explain_system(error)}")
        ) from error


def replay(parsed: argparse.Namespace) -> int:
    """Answer until Ctrl-C."""
    device = Replayed(read_walk(parsed.walk))
    listen = parsed.listen
    host, port = _where(f"{LOOPBACK}:{listen}" if listen.isdigit() else listen)
    user = _credential(parsed) if parsed.v3 else None
    community = parsed.community or DEFAULT_COMMUNITY
    with asyncio.Runner() as runner:
        runner.run(_serve(device, community, host, port, user))
    return OK


async def _serve(device: Replayed, community: str, host: str, port: int, user: Opened | None) -> None:
    try:
        transport = await serve_replay(device, community, host, port, user)
    except OSError as error:
        text = say(
            f"无法监听 {host}:{port}：{explain_system(error)}",
            f"cannot listen on {host}:{port}: {explain_system(error)}",
        )
        raise WrongCall(text) from error
    host, port = transport.get_extra_info("sockname")[:2]
    print(say(f"在 {host}:{port} 应答，Ctrl-C 结束", f"answering on {host}:{port}; Ctrl-C ends it"), flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        transport.close()


def check_profiles(parsed: argparse.Namespace) -> int:
    """All mistakes of all profiles with their lines."""
    profiles = _read_profiles(parsed.files) if parsed.files else load_profiles()
    for name, profile in profiles.items():
        signals = sorted({signal for signal, _ in emitted(profile)})
        print(f"{name}: {', '.join(profile.file.select)} -> {', '.join(signals)}")
    count = len(profiles)
    print(say(f"{count} 个设备档案，没有问题", f"{count} profiles, in order"))
    return OK


def _read_profiles(paths: list[Path]) -> Mapping[str, Profile]:
    found: dict[str, Profile] = {}
    mistakes: list[Mistake] = []
    for path in paths:
        try:
            found[path.stem] = read_profile(path)
        except FileMistakes as error:
            mistakes += error.mistakes
    if mistakes:
        raise FileMistakes(mistakes)
    return found


def discover(parsed: argparse.Namespace) -> int:
    """Ask the allowed ranges; a register draft and the targets that go with it."""
    config, agent = _section(parsed.config)
    if config.discover is None:
        raise WrongCall(
            say("配置中没有 snmp_device.discover.ranges", "the configuration has no snmp_device.discover.ranges")
        )
    allowed = [read_range(text) for text in config.discover.ranges]
    try:
        wanted = [read_range(text) for text in parsed.ranges] or allowed
    except ValueError as error:
        raise WrongCall(str(error)) from error
    addresses = choose_addresses(wanted, allowed)
    credentials = {name: one.open() for name, one in config.credentials.items()}
    ports = parsed.port or sorted({SNMP_PORT, *(target.port for target in config.targets)})
    search = Search(credentials, load_profiles(), config.discover.requests_per_second, ports=ports)
    seconds, asked = search.longest_seconds(len(addresses)), ", ".join(map(str, ports))
    text = say(
        f"{len(addresses)} 个地址，端口 {asked}，最长 {seconds:.0f} 秒",
        f"{len(addresses)} addresses, port {asked}, {seconds:.0f} s at most",
    )
    print(text, file=sys.stderr)
    found = asyncio.run(_search(search, addresses, config))
    if not found:
        text = say(
            f"没有设备在 {asked} 端口应答；请核对凭据、端口(--port)与设备的访问控制",
            f"no device answers on port {asked}; check the credentials, the port (--port) and who may ask the devices",
        )
        raise SourceError(text)
    new = name_new(found, [target.asset for target in config.targets])
    if parsed.output and new:
        _write(parsed.output, write_document(draft_register(new, agent)), is_new=True)
    if parsed.format == "json":
        _print_json({"found": found, "targets": draft_targets(new)})
    else:
        _report(found, new, agent, has_register=bool(parsed.output))
    if not new:
        text = say("应答的设备都已接入，没有新的", "every device that answers is enrolled already; nothing is drafted")
        print(text, file=sys.stderr)
    return OK


async def _search(search: Search, addresses: Sequence[str], config: Config) -> list[Found]:
    enrolled = {(target.host, target.port): target.asset for target in config.targets}
    return await note_enrolled(await search.run(addresses), enrolled)


def _report(found: Sequence[Found], new: Mapping[str, Found], agent: str, *, has_register: bool) -> None:
    rows = [
        (
            f"{one.host}:{one.port}",
            one.target or say("新", "new"),
            one.credential,
            one.name,
            one.asset_class or "?",
            one.object_id,
            one.description[:40],
        )
        for one in found
    ]
    headers = (
        "HOST:PORT",
        say("已接入为", "ENROLLED AS"),
        say("凭据", "CREDENTIAL"),
        say("名称", "NAME"),
        say("类别", "CLASS"),
        "sysObjectID",
        say("描述", "DESCRIPTION"),
    )
    print(render_table(headers, rows))
    if new and not has_register:
        print(f"\n# register.yaml\n{write_document(draft_register(new, agent))}", end="")
    if new:
        print(f"\n# agent.yaml\n{write_document({'targets': draft_targets(new)})}", end="")


def _print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "try": try_device,
    "walk": record,
    "replay": replay,
    "profile": check_profiles,
    "discover": discover,
}
"""A command's name on the command line, and what does it."""
