"""The commands that explain and compare scores: explain, diff, history, rules coverage, rules diff."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent.commandline import OK, WRONG, Parser, add_format, whole_number
from agent.language import say

AddCommand = Callable[[str, Callable[[argparse.Namespace], int], str, str], Parser]
AddOptions = Callable[[Parser], None]
ParseTime = Callable[[str], int]

DAY_MS = 86_400_000


def add_commands(add: AddCommand, add_place: AddOptions, add_as_of: AddOptions, parse_time: ParseTime) -> None:
    """`explain`, `diff` and `history` of the program itself."""
    explain = add("explain", _explain, "逐步解释一个数字：从样本到得分", "explain a number, from samples to points")
    explain.add_argument(
        "name", metavar=say("准则或指标", "ID"), help=say("准则或指标的名称", "of a criterion or an indicator")
    )
    add_place(explain)
    add_as_of(explain)
    explain.add_argument(
        "--revision",
        type=whole_number(1, 10**9),
        metavar=say("修订", "N"),
        help=say("某次修订(默认最新)", "a revision (the newest)"),
    )
    add_format(explain, ("text", "json"))
    explain.epilog = say(
        """示例：
  infravitals explain telemetry-completeness
  infravitals explain network-management --as-of 2026-03-31T00:00:00+08:00""",
        """examples:
  infravitals explain telemetry-completeness
  infravitals explain network-management --as-of 2026-03-31T00:00:00+08:00""",
    )
    diff = add("diff", _diff, "两个时刻之间哪些分数变了、为什么", "what moved between two times, and why")
    for word in ("before", "after"):
        diff.add_argument(
            word,
            type=parse_time,
            metavar=say("时刻", "TIME"),
            help=say("带时区的时刻", "a time with its offset"),
        )
    add_place(diff)
    add_format(diff, ("text", "json"))
    diff.epilog = say(
        "示例：\n  infravitals diff 2026-03-30T00:00:00+08:00 2026-03-31T00:00:00+08:00",
        "example:\n  infravitals diff 2026-03-30T00:00:00+08:00 2026-03-31T00:00:00+08:00",
    )
    history = add(
        "history", _history, "已存的评分及每次修订的原因", "the stored scorecards and why each revision exists"
    )
    history.add_argument(
        "--since",
        type=parse_time,
        metavar=say("时刻", "TIME"),
        help=say("从何时起(默认 7 天前)", "from when on (7 days ago)"),
    )
    add_place(history)
    add_format(history, ("table", "json"))


def add_rules_commands(add: AddCommand, add_place: AddOptions, add_as_of: AddOptions) -> None:
    """`rules coverage` and `rules diff`."""
    coverage = add(
        "coverage",
        _coverage,
        "哪些信号支撑哪条准则，本院缺什么，下一步接入什么",
        "which signal feeds which criterion, what this site lacks, what to enrol next",
    )
    add_place(coverage)
    add_as_of(coverage)
    add_format(coverage, ("text", "json"))
    diff = add(
        "diff",
        _rules_diff,
        "改规则后谁涨谁跌(同一份数据)",
        "who gains and who loses by a change of rules, on the same data",
    )
    diff.add_argument("old", type=Path, metavar=say("旧目录", "OLD"), help=say("改前的规则目录", "the rules before"))
    diff.add_argument("new", type=Path, metavar=say("新目录", "NEW"), help=say("改后的规则目录", "the rules after"))
    add_place(diff)
    add_as_of(diff)
    add_format(diff, ("text", "json"))


def _show_json(body: bytes) -> int:
    import msgspec

    print(msgspec.json.format(body, indent=2).decode())
    return OK


def _explain(options: argparse.Namespace) -> int:
    import msgspec

    from agent.documents import nearest
    from collector import beside
    from collector.explain import explain, find_explained, known_names
    from collector.explain_network import belongs_to, matrix_lines
    from collector.network import NetworkFacts
    from collector.ruleset import load_rules
    from collector.score import Scorecard
    from collector.snapshot import Commands, program_word

    place = beside.find_place(options.config, options.data_dir)
    body = beside.ask_store(place, "card", {"as_of": options.as_of, "revision": options.revision})
    card = msgspec.json.decode(body, type=Scorecard)
    found = find_explained(card, options.name)
    if found is None:
        text = say(f"没有准则或指标 '{options.name}'", f"there is no criterion or indicator '{options.name}'")
        print(text + nearest(options.name, known_names(card)), file=sys.stderr)
        return WRONG
    if options.format == "json":
        return _show_json(msgspec.json.encode(found))
    commands = Commands(program_word(sys.argv[0]), place.words, place.register)
    print(explain(load_rules(place.rules_directory).rules, card, found, commands))
    if belongs_to(found) and options.as_of is None and options.revision is None:
        facts = msgspec.json.decode(beside.ask_store(place, "network", {}), type=NetworkFacts)
        print("\n" + "\n".join(matrix_lines(facts)))
    return OK


def _diff(options: argparse.Namespace) -> int:
    from collector import beside

    place = beside.find_place(options.config, options.data_dir)
    return _show_difference(
        beside.ask_store(place, "difference", {"before": options.before, "after": options.after}), options.format
    )


def _show_difference(body: bytes, form: str) -> int:
    import msgspec

    from collector.answers import Difference

    if form == "json":
        return _show_json(body)
    found = msgspec.json.decode(body, type=Difference)
    print(f"{found.before} -> {found.after}")
    if not found.moved:
        print(say("没有分数变化。", "no score moved."))
    for moved in found.moved:
        print(f"  {moved.id} · {moved.title}: {moved.sentence}")
    return OK


def _history(options: argparse.Namespace) -> int:
    import msgspec

    from collector import beside
    from collector.grid import draw
    from collector.history import HistoryRow
    from collector.tables import history_grid

    since = options.since if options.since is not None else int(time.time() * 1000) - 7 * DAY_MS
    place = beside.find_place(options.config, options.data_dir)
    body = beside.ask_store(place, "history", {"since": since})
    if options.format == "json":
        return _show_json(body)
    rows = msgspec.json.decode(body, type=list[HistoryRow])
    if not rows:
        print(
            say("还没有存下的评分；每个整点存一份。", "nothing is stored yet; a scorecard is stored every full hour.")
        )
        return OK
    for line in draw(history_grid(rows), None)[1:]:  # lines are the terminal's to wrap: nothing is cut
        print(line.text)
    return OK


def _coverage(options: argparse.Namespace) -> int:
    import msgspec

    from collector import beside
    from collector.coverage import Coverage

    place = beside.find_place(options.config, options.data_dir)
    body = beside.ask_store(place, "coverage", {"as_of": options.as_of})
    if options.format == "json":
        return _show_json(body)
    found = msgspec.json.decode(body, type=Coverage)
    indicator = ""
    marks = {"seen": "●", "not_seen": "○", "no_source": "–"}
    for row in found.criteria:
        if row.indicator != indicator:
            indicator = row.indicator
            print(indicator)
        print(f"  {row.id} ({row.weight:g}) {row.title}")
        for signal in row.signals:
            sources = f" <- {', '.join(signal.sources)}" if signal.sources else ""
            print(f"    {marks[signal.state]} {signal.signal}{sources}")
        if row.todo is not None:
            print(f"    -> {row.todo}")
    print(say("● 已采集  ○ 有采集源但未见到  – 尚无采集源", "● seen  ○ a source exists, not seen  – no source yet"))
    print(say("最值得先做的：", "to do next: ") + ", ".join(found.following))
    return OK


def _rules_diff(options: argparse.Namespace) -> int:
    from collector import beside
    from collector.ruleset import load_rules

    for folder in (options.old, options.new):
        load_rules(folder)  # a mistake in them is said here, with its file and line
    place = beside.find_place(options.config, options.data_dir)
    folders = {"old": str(options.old.absolute()), "new": str(options.new.absolute()), "as_of": options.as_of}
    return _show_difference(beside.ask_store(place, "rules-difference", folders), options.format)
