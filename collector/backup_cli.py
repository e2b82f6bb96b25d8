"""The commands `backup` and `restore`: parsers and what they do."""

import argparse
import shlex
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from agent.commandline import OK, Parser
from agent.language import say

if TYPE_CHECKING:  # a command imports what it needs when it runs
    from collections.abc import Callable, Iterator

    from collector.setup.backup import Manifest
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
            "不含私钥、密码、令牌、网页密码的散列与 share_group：恢复后要重新生成，并重新发给每个采集代理，除非另行保存了它们(--with-keys)",
            "without keys, passwords, tokens, the hash of the page's password and share_group: a site restored from it makes them anew and is given out to every agent anew, unless they are kept elsewhere (--with-keys)",
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
    if not manifest.has_keys:
        for line in _to_make_anew(manifest, options.dir):
            print(line)
    return OK


def _to_make_anew(manifest: "Manifest", folder: Path) -> "Iterator[str]":
    """What a backup without keys lacks, and the commands that make it."""
    if manifest.left_out:
        names = say("、", ", ").join(manifest.left_out)
        yield say(f"不在备份里、要重新生成的：{names}", f"not in the backup and to be made anew: {names}")
    if not manifest.folder:
        return
    home, agents = shlex.quote(str(folder)), _agents_of(manifest)
    yield say("依次运行：", "run one after the other:")
    first = f" --agent {agents[0]}" if agents else ""
    yield f"  infravitals site init --dir {home} --name {manifest.site}{first}"
    yield from (f"  infravitals site add-agent {name} --dir {home}" for name in agents[1:])
    yield say(
        "再把每个采集代理的新包送到它那里，浏览器与 Prometheus 换用新的 ca.pem、密码与令牌",
        "then carry each agent its new bundle, and give browsers and Prometheus the new ca.pem, password and token",
    )
    if manifest.store == "influxdb":
        yield say(
            "InfluxDB 沿用旧数据时，其用户仍是旧密码：请由它的管理员改成 collector/credentials 与 grafana 中新的",
            "an InfluxDB that keeps its old data keeps its users' old passwords: let its administrator set the new ones of collector/credentials and grafana",
        )


def _agents_of(manifest: "Manifest") -> list[str]:
    """The agents that the site had, the one of this machine first: `site init` makes it."""
    from collector.setup.agents import AGENTS
    from collector.setup_cli import this_host

    paths = [PurePosixPath(name) for name in manifest.left_out]
    names = [path.stem for path in paths if path.parts[0] == AGENTS and path.suffix == ".tar"]
    return sorted(names, key=lambda name: (name != this_host(), name))


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
