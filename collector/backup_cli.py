"""The commands `backup` and `restore`: parsers and what they do."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.commandline import OK, Parser
from agent.language import say

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from collections.abc import Callable

    from collector.site_cli import Add

MEGABYTE = 1_000_000


def add_commands(add: "Add", add_place: "Callable[[Parser], None]") -> None:
    """`backup` and `restore`."""
    name, folder = say("文件", "FILE"), say("目录", "DIR")
    backup = add(
        "backup", _backup, "备份采集中心的状态，可在运行时做", "back a collector's state up, also while it runs"
    )
    add_place(backup)
    backup.add_argument(
        "--to", type=Path, required=True, metavar=name, help=say("写到(不覆盖)", "the archive, never over a file")
    )
    about = say(
        "连同私钥、密码与令牌；备份件要像密码一样保管",
        "with keys, passwords and tokens; guard the archive like a password",
    )
    backup.add_argument("--with-keys", action="store_true", help=about)
    backup.epilog = say(
        """示例：
  infravitals backup -c hospital/collector/collector.yaml --to /backup/hospital.tar.gz --with-keys
  infravitals restore /backup/hospital.tar.gz --dir hospital""",
        """examples:
  infravitals backup -c hospital/collector/collector.yaml --to /backup/hospital.tar.gz --with-keys
  infravitals restore /backup/hospital.tar.gz --dir hospital""",
    )
    restore = add("restore", _restore, "从备份恢复到一个新目录", "restore a backup into a new folder")
    restore.add_argument("source", type=Path, metavar=name, help=say("备份件", "the archive"))
    restore.add_argument(
        "--dir", type=Path, required=True, metavar=folder, help=say("恢复到(须不存在或为空)", "where to, new or empty")
    )


def _backup(options: argparse.Namespace) -> int:
    from collector.beside import find_place
    from collector.config import read_config
    from collector.setup.backup import back_up, home_of

    config = read_config(options.config) if options.config else None
    place = find_place(options.config, options.data_dir)
    manifest = back_up(place, config, options.to, with_keys=options.with_keys, progress=_show)
    size = options.to.stat().st_size / MEGABYTE
    print(
        say(
            f"{options.to}：{len(manifest.files)} 个文件，{size:.1f} MB",
            f"{options.to}: {len(manifest.files)} files, {size:.1f} MB",
        )
    )
    if manifest.store != "duckdb":
        text = say(
            "数据在 InfluxDB 中，不在备份里：请用 influxd backup，或 infravitals store copy",
            "the data are InfluxDB's and not in it: use influxd backup, or infravitals store copy",
        )
        print(text, file=sys.stderr)
    if home_of(config) and not options.with_keys:
        text = say(
            "不含私钥与密码：恢复后的站点要重新发给每个采集代理，除非另行保存了它们(--with-keys)",
            "without keys and passwords: a site restored from it has to be given out to every agent anew, unless they are kept elsewhere (--with-keys)",
        )
        print(text, file=sys.stderr)
    return OK


def _restore(options: argparse.Namespace) -> int:
    from collector.setup.backup import restore

    manifest = restore(options.source, options.dir, _show)
    print(
        say(
            f"已恢复到 {options.dir}：站点 {manifest.site}，{len(manifest.files)} 个文件，摘要全部相符",
            f"restored to {options.dir}: site {manifest.site}, {len(manifest.files)} files, every digest agrees",
        )
    )
    if manifest.folder and not manifest.has_keys:
        print(
            say(
                f"缺的私钥与密码由 infravitals site init --dir {options.dir} --name {manifest.site} 重新生成",
                f"infravitals site init --dir {options.dir} --name {manifest.site} makes the keys and passwords that are missing",
            )
        )
    return OK


def _show(done: int, total: int) -> None:
    """How far it is, on a terminal."""
    if sys.stderr.isatty() and total:
        end = "\n" if done >= total else ""
        print(
            f"\r{done / MEGABYTE:.1f} / {total / MEGABYTE:.1f} MB {done / total:4.0%}",
            end=end,
            file=sys.stderr,
            flush=True,
        )
