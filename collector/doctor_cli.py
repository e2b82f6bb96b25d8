"""`infravitals doctor` on the command line."""

import argparse
import sys
from collections.abc import Callable

from agent.commandline import OK, TROUBLE, Parser, add_format

AddCommand = Callable[[str, Callable[[argparse.Namespace], int], str, str], Parser]


def add_command(add: AddCommand, add_place: Callable[[Parser], None]) -> None:
    """`doctor` of the program itself."""
    doctor = add(
        "doctor",
        _doctor,
        "检查时钟、消息服务器、权限、证书、存储、采集代理与盲区，给出修复命令；什么都不改",
        "look at clock, broker, permissions, certificates, store, agents and blind spots, and say what mends them; changes nothing",
    )
    add_place(doctor)
    add_format(doctor, ("text", "json"))


def _doctor(options: argparse.Namespace) -> int:
    from agent.checkup import is_well, render, render_json
    from collector.beside import find_place
    from collector.config import read_config
    from collector.doctor import examine
    from collector.snapshot import Commands, program_word

    place = find_place(options.config, options.data_dir)
    config = read_config(options.config) if options.config else None
    findings = examine(place, config, Commands(program_word(sys.argv[0]), place.words, place.register))
    print(render_json(findings) if options.format == "json" else render(findings))
    return OK if is_well(findings) else TROUBLE
