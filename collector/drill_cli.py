"""`infravitals drill`: plan, run, watch, list, show. It runs on the machine whose agent has the continuity probe, with that agent's file."""

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commandline import OK, TROUBLE, WRONG, Parser, add_format, number
from agent.errors import WrongCall
from agent.language import say

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from agent.continuity.settings import Probe
    from agent.drills.plan import Plan
    from agent.drills.records import Record
    from collector.site_cli import Add, Handler


def add_commands(add: "Add") -> None:
    """`drill` and what is below it."""
    drill = add(
        "drill",
        lambda options: WRONG,
        "切换演练：实测恢复时间与数据丢失",
        "drills: recovery time and lost data, measured",
    )
    below = drill.add_subparsers(title=say("命令", "commands"), metavar=say("命令", "COMMAND"), required=True)

    def sub(name: str, handler: "Handler", zh: str, en: str) -> Parser:
        child: Parser = below.add_parser(name, help=say(zh, en), description=say(zh, en))
        child.set_defaults(handler=handler)
        where = child.add_mutually_exclusive_group(required=True)
        where.add_argument(
            "-c", "--config", type=Path, metavar="agent.yaml", help=say("采集代理的配置", "the agent's configuration")
        )
        if name in ("list", "show"):
            where.add_argument(
                "--folder", type=Path, metavar=say("目录", "DIR"), help=say("演练记录的目录", "the folder of records")
            )
        return child

    plan = sub("plan", _plan, "打印计划中的全部动作，什么也不碰", "print every action of a plan; touches nothing")
    plan.add_argument("plan", type=Path, metavar=say("计划", "PLAN.yaml"))
    run = sub("run", _run, "按计划演练；须两人开始", "drill as planned; two people start it")
    run.add_argument("plan", type=Path, metavar=say("计划", "PLAN.yaml"))
    run.add_argument(
        "--by",
        action="append",
        default=[],
        metavar=say("姓名", "NAME"),
        help=say("由谁开始，写两次", "who starts it; twice"),
    )
    run.add_argument("--code", default="", help=say("drill plan 打印的代号", "the code that `drill plan` prints"))
    add_format(run, ("text", "json"))
    watch = sub("watch", _watch, "只观察，由人动手切换", "only watch while somebody makes the switch")
    watch.add_argument(
        "probe",
        metavar=say("探测", "PROBE"),
        help=say("continuity_probe 中的名称", "a name under continuity_probe.probes"),
    )
    watch.add_argument(
        "--id", default=None, metavar=say("编号", "ID"), help=say("这次演练的编号", "the id of this drill")
    )
    watch.add_argument(
        "--by", action="append", default=[], metavar=say("姓名", "NAME"), help=say("谁在动手", "who acts")
    )
    watch.add_argument(
        "--seconds",
        type=number(1, 86_400),
        default=900.0,
        metavar=say("秒", "SECONDS"),
        help=say("最长观察多久(默认 900)", "how long at most (900)"),
    )
    add_format(watch, ("text", "json"))
    listed = sub("list", _list, "列出做过的演练", "list the drills that were")
    add_format(listed, ("table", "json"))
    show = sub(
        "show", _show, "一次演练的全部，并按令牌日志重新核算", "all of a drill, counted again from its token log"
    )
    show.add_argument("drill", metavar=say("编号", "ID"))
    add_format(show, ("text", "json"))


def _plan(options: argparse.Namespace) -> int:
    from agent.drills.plan import describe

    plan = _read_plan(options.plan)
    _find_probe(options.config, plan.probe)
    print("\n".join(describe(plan)))
    return OK


def _run(options: argparse.Namespace) -> int:
    from agent.drills.plan import check_start, refuse_absent

    plan = _read_plan(options.plan)
    probe, folder = _find_probe(options.config, plan.probe)
    check_start(plan, options.by, options.code, datetime.now(UTC))
    refuse_absent(plan)
    return _conduct(plan, probe, folder, options.by, options.format)


def _watch(options: argparse.Namespace) -> int:
    from agent.catalogue import explain_id, is_id
    from agent.drills.plan import Plan, Window

    now = datetime.now(UTC)
    name = options.id or now.strftime("watch-%Y%m%dt%H%M%S")
    if not is_id(name):
        raise WrongCall(explain_id("--id", name))
    probe, folder = _find_probe(options.config, options.probe)
    window = Window(now, now + timedelta(days=1))
    plan = Plan(
        drill=name, probe=options.probe, people=("watch", "only"), window=window, observe_seconds=options.seconds
    )
    return _conduct(plan, probe, folder, options.by, options.format)


def _conduct(plan: "Plan", probe: "Probe", folder: Path, people: list[str], form: str) -> int:
    from agent.drills.conduct import Conductor
    from agent.sources import Surroundings

    def tell(text: str) -> None:
        if form == "text":
            with contextlib.suppress(OSError):  # the terminal may be gone; what the drill has switched is not
                print(text, flush=True)

    async def conduct() -> "Record":
        conductor = Conductor(plan, probe, folder, Surroundings("drill"), tell)
        loop = asyncio.get_running_loop()
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(how, conductor.stop)
        return await conductor.run(people)

    record = asyncio.run(conduct())
    _print_record(record, form)
    return OK


def _list(options: argparse.Namespace) -> int:
    from agent.drills.records import find_unfinished, read_records
    from agent.table import render_table, show_seconds

    records = read_records(_folder(options))
    if options.format == "json":
        _print_json(records)
        return OK
    headers = [
        say("演练", "DRILL"),
        say("业务", "SERVICE"),
        say("时间", "BEGAN"),
        "RTO (s)",
        "RPO (s)",
        say("丢失", "LOST"),
        say("通过", "PASSED"),
    ]
    rows = [
        (
            one.drill,
            one.service,
            _time(one.began_at),
            show_seconds(one.rto_seconds),
            show_seconds(one.rpo_seconds),
            _count(one),
            _yes(one.is_passed),
        )
        for one in records
    ]
    print(render_table(headers, rows) if rows else say("还没有演练", "no drill yet"))
    for name in find_unfinished(_folder(options)):
        print(_explain_unfinished(name))
    return OK


def _show(options: argparse.Namespace) -> int:
    from agent.drills.records import find_doubts, find_unfinished, read_records

    folder = _folder(options)
    found = [record for record in read_records(folder) if record.drill == options.drill]
    if not found and options.drill in find_unfinished(folder):
        raise WrongCall(_explain_unfinished(options.drill))
    if not found:
        raise WrongCall(say(f"{folder} 中没有演练 {options.drill}", f"there is no drill {options.drill} in {folder}"))
    doubts = find_doubts(folder, found[0])
    _print_record(
        found[0],
        options.format,
        doubts or [say("按令牌日志重算，与记录相符", "counted again from the token log: it agrees")],
    )
    return TROUBLE if doubts else OK


def _explain_unfinished(name: str) -> str:
    return say(
        f"{name}：没有结果，仍在进行或已被中断；若已被中断，请另取编号重做(它的令牌 7 天后由探测或下一次演练删去)",
        f"{name}: no result, for it is still on or was cut off; if it was, repeat it under another id (its tokens are deleted after 7 days, by the probe or the next drill)",
    )


def _print_record(record: "Record", form: str, verdicts: Sequence[str] = ()) -> None:
    """verdicts: what counting again came to."""
    from agent.continuity.stream import Finding
    from agent.drills.conduct import describe_outage

    if form == "json":
        _print_json(record)
        return
    lines = [
        say(
            f"演练 {record.drill}，业务 {record.service}，{_time(record.began_at)}",
            f"drill {record.drill}, service {record.service}, {_time(record.began_at)}",
        ),
        *_describe_start(record),
        *(f"{_time(outage.began_at)} {describe_outage(Finding(outage, None))}" for outage in record.outages),
        _describe_recovery(record),
        _describe_loss(record),
        say(
            f"令牌 {record.sent} 个，确认 {record.acknowledged} 个",
            f"{record.sent} tokens, {record.acknowledged} acknowledged",
        ),
        say(f"切走并切回：{_yes(record.is_passed)}", f"moved and came back: {_yes(record.is_passed)}"),
        *_explain_nameless(record),
        _describe_hands(record),
        say(f"令牌日志 SHA-256 {record.token_log_digest}", f"token log SHA-256 {record.token_log_digest}"),
    ]
    if record.is_aborted:
        lines.append(say("已中止", "broken off"))
    print("\n".join([*lines, *verdicts]))


def _explain_nameless(record: "Record") -> list[str]:
    """Who served was not to be told apart, so that no drill of this probe can pass."""
    if record.is_passed or not record.outages or any(one.is_moved for one in record.outages):
        return []
    return [
        say(
            "看不出换了应答者：若确已切换，请让各台自报不同的名称(PostgreSQL 的 cluster_name，http 的 identity_header，tcp 的 banner)",
            "no other server was seen to answer: if it did switch, let each say a name of its own (cluster_name of PostgreSQL, identity_header of http, banner of tcp)",
        )
    ]


def _describe_start(record: "Record") -> list[str]:
    """Who started it, by which plan, and why, as far as it was said."""
    code = record.plan_digest[:12]
    by = say("、", ", ").join(record.people)
    lines = [say(f"由 {by} 开始，计划代号 {code}", f"started by {by}, code of the plan {code}")] if by else []
    return lines + ([record.remark] if record.remark else [])


def _describe_recovery(record: "Record") -> str:
    from agent.table import NEVER_SECONDS, show_seconds

    shown = show_seconds(record.rto_seconds)
    if record.rto_seconds is None:
        return say("RTO 未测：没有见到中断或切换", "RTO not measured: neither an outage nor a move was seen")
    return f"RTO {shown}" if record.rto_seconds >= NEVER_SECONDS else f"RTO {shown} s"


def _describe_hands(record: "Record") -> str:
    words = {
        True: say("切换中最长的中断，恢复时无人介入", "the longest outage of the switch ended without a person"),
        False: say("切换中最长的中断，恢复时有人介入", "the longest outage of the switch ended with a person's help"),
        None: say("恢复时是否有人介入未知", "whether a person helped it to recover is not known"),
    }
    return words[record.is_automatic]


def _describe_loss(record: "Record") -> str:
    if record.lost is None or record.rpo_seconds is None:
        return say(
            "RPO 未测：这条路径不保存令牌，或读不回来，或探测自己有错、其间业务未知",
            "RPO not measured: this path keeps no tokens, or they could not be read back, or a mistake of the probe's own hid some of it",
        )
    from agent.table import show_seconds

    count, seconds = len(record.lost), show_seconds(record.rpo_seconds)
    return say(f"RPO {seconds} s，丢失 {count} 个已确认的令牌", f"RPO {seconds} s, {count} acknowledged tokens lost")


def _print_json(value: object) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _read_plan(path: Path) -> "Plan":
    from agent.documents import build, read_document
    from agent.drills.plan import Plan

    return build(read_document(path), Plan)


def _find_probe(config_path: Path, name: str) -> tuple["Probe", Path]:
    """The probe of that name, and the folder of records beside the agent's state."""
    from agent.config import read_config
    from agent.documents import nearest
    from agent.sources.continuity_probe import Config

    config = read_config(config_path)
    for section in config.sources:
        if isinstance(section.config, Config):
            if name in section.config.probes:
                return section.config.probes[name], config.state_directory / "drills"
            known = nearest(name, section.config.probes)
            raise WrongCall(say(f"{config_path} 中没有探测 '{name}'", f"{config_path} has no probe '{name}'") + known)
    raise WrongCall(say(f"{config_path} 没有配置 continuity_probe", f"{config_path} has no continuity_probe"))


def _folder(options: argparse.Namespace) -> Path:
    from agent.config import read_config

    folder: Path | None = options.folder
    if folder is not None and not folder.is_dir():
        raise WrongCall(say(f"没有目录 {folder}", f"there is no folder {folder}"))
    return folder if folder is not None else read_config(options.config).state_directory / "drills"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(timespec="seconds")


def _count(record: "Record") -> str:
    return "-" if record.lost is None else str(len(record.lost))


def _yes(value: bool) -> str:
    return say("是", "yes") if value else say("否", "no")
