"""`backup` and `restore`: one file with a collector's state, its site folder and, where wanted, its keys; every byte proven by digests.

The archive is a compressed tar: `manifest.json` first, then files named by where they lie below the restored folder.
"""

import contextlib
import errno
import hashlib
import io
import os
import secrets
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from agent.errors import InfravitalsError, WrongCall
from agent.language import say
from collector.beside import REMEMBERED, NoData, Place, ask_save
from collector.config import CollectorConfig
from collector.quarantine import Quarantine
from collector.setup import site as at
from collector.setup.left_out import without_keys
from collector.setup.placing import PART, unreadable, unwritable
from collector.site_edit import LOCK

MANIFEST = "manifest.json"
FORM = 1
CHUNK_BYTES = 1024 * 1024
MOST_MANIFEST_BYTES = 16 * 1024 * 1024
LEFT_SECONDS = 3600.0
GZIP = b"\x1f\x8b"
DATA, SITE = "data/collector", "site"
REWRITTEN = (
    at.BROKER_CONF,
    "influxdb/influxdb.conf",
    "grafana/grafana.ini",
    "grafana/provisioning/datasources/infravitals.yaml",
    "grafana/provisioning/dashboards/infravitals.yaml",
    "compose.env",
)
"""Files of a site that hold its folder's name."""

Progress = Callable[[int, int], None]
"""Is told how many bytes of how many are done."""


class BackupError(InfravitalsError):
    """An archive is damaged, cut off, or none of ours."""


class NoArchive(BackupError, WrongCall):
    """What is named is no archive of ours, or is not there."""


class InTheWay(BackupError, WrongCall):
    """The archive or the folder is there already."""


class Held(msgspec.Struct, frozen=True):
    """One file of an archive; mode: its permissions."""

    name: str
    bytes: int
    sha256: str
    mode: int


class Manifest(msgspec.Struct, frozen=True):
    """What an archive says of itself. made_at: seconds since the epoch. folder: where the site lay, '' for none.

    store: `duckdb` where the data are in it; `influxdb` where they are the server's. left_out: the files that are not in it
    and the keys of the configuration that are not, as `file: key`, without which nothing of it starts.
    """

    form: int
    made_at: int
    site: str
    store: str
    has_keys: bool
    folder: str
    files: tuple[Held, ...]
    left_out: tuple[str, ...] = ()


def back_up(
    place: Place, config: CollectorConfig | None, target: Path, *, with_keys: bool, progress: Progress
) -> Manifest:
    """Write the archive `target`, for its owner alone, whole or not at all.

    Raises InTheWay, NoData, CannotLeaveOut, StoreError or CannotPlace.
    """
    if target.exists():
        raise InTheWay(say(f"{target} 已存在，不会覆盖", f"{target} is there already and is not written over"))
    if not place.data_directory.is_dir():
        raise NoData(
            say(
                f"没有目录 {place.data_directory}，采集中心还没有运行过；请先启动它，或核对 data_directory",
                f"there is no folder {place.data_directory}: the collector never ran; start it first, or look at data_directory",
            )
        )
    sweep(place.data_directory)
    staged = place.data_directory / f"{PART}backup-{secrets.token_hex(4)}"
    try:
        staged.mkdir(mode=0o700)
        files, left_out = _gather(place, config, staged), list[str]()
        if not with_keys:
            files, left_out = without_keys(files, staged)
        manifest = _manifest(place, config, files, left_out, with_keys=with_keys)
        _write(target, manifest, files, progress)
    except OSError as error:
        raise unwritable(Path(error.filename or target), error) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return manifest


def sweep(data_directory: Path) -> None:
    """Take away what a backup left there that was killed an hour ago or earlier."""
    for left in data_directory.glob(f"{PART}backup-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def home_of(config: CollectorConfig | None) -> Path | None:
    """The folder of the site that `site init` made, which a configuration belongs to."""
    home = config.file.absolute().parent.parent if config else None
    return home if home and (home / at.MADE).exists() and (home / at.COLLECTOR).exists() else None


def _gather(place: Place, config: CollectorConfig | None, staged: Path) -> dict[str, Path]:
    """Name in the archive -> the file. What a running collector writes is saved as of now into `staged`."""
    files: dict[str, Path] = {}
    data = f"{DATA}/" if config else ""
    store = staged / "store"
    if ask_save(place, store):
        path = Path(getattr(place.store_config, "path", "store.duckdb"))
        files[f"{data}{path.name}"] = store
    if place.quarantine.exists():
        with Quarantine(place.quarantine) as quarantine:
            quarantine.save_copy(staged / "quarantine")
        files[f"{data}{place.quarantine.name}"] = staged / "quarantine"
    remembered = staged / REMEMBERED
    remembered.write_bytes(msgspec.json.encode({"site": place.site.id}))
    files[f"{data}{REMEMBERED}"] = remembered
    for saved in staged.iterdir():
        saved.chmod(0o600)
    if place.site_folder is not None:
        files |= _below(place.site_folder, f"{SITE}/")
    home = home_of(config)
    if home is not None:
        kept = {"data", SITE}
        files |= {name: path for name, path in _below(home, "").items() if PurePosixPath(name).parts[0] not in kept}
    elif config is not None:
        files[at.COLLECTOR] = config.file
    return dict(sorted(files.items()))


def _below(folder: Path, prefix: str) -> dict[str, Path]:
    return {
        f"{prefix}{path.relative_to(folder).as_posix()}": path
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK and not path.name.startswith(PART) and path.suffix != ".pid"
    }


def _manifest(
    place: Place, config: CollectorConfig | None, files: Mapping[str, Path], left_out: list[str], *, with_keys: bool
) -> Manifest:
    home = home_of(config)
    held = tuple(
        Held(name, path.stat().st_size, _digest(path), path.stat().st_mode & 0o777) for name, path in files.items()
    )
    folder = str(home) if home else ""
    return Manifest(FORM, int(time.time()), place.site.id, place.store_kind, with_keys, folder, held, tuple(left_out))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()


class _Counting:
    """A file that tells how much of it was read."""

    def __init__(self, file: IO[bytes], note: Callable[[int], None]) -> None:
        self._file, self._note = file, note

    def read(self, size: int = -1) -> bytes:
        part = self._file.read(size)
        self._note(len(part))
        return part


def _write(target: Path, manifest: Manifest, files: Mapping[str, Path], progress: Progress) -> None:
    beside = target.with_name(f"{PART}{target.name}")
    total, done = sum(one.bytes for one in manifest.files), 0

    def note(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    try:
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as raw:
            with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as archive:
                text = _text(manifest)
                archive.addfile(_member(MANIFEST, len(text), 0o600), io.BytesIO(text))
                for one in manifest.files:
                    with files[one.name].open("rb") as file:
                        archive.addfile(_member(one.name, one.bytes, one.mode), _Counting(file, note))
            raw.flush()
            os.fsync(raw.fileno())
        os.link(beside, target)  # unlike a rename it never goes over a file that came in between
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _text(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"


def _member(name: str, size: int, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode
    return member


def restore(source: Path, folder: Path, progress: Progress) -> Manifest:
    """Unpack an archive into a new folder, whole or not at all. Raises InTheWay, BackupError or CannotPlace."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InTheWay(
            say(f"{folder} 已存在且不是空目录，不会覆盖", f"{folder} is there and not empty; nothing is written over")
        )
    beside = folder.absolute().with_name(f"{PART}{folder.name}-{secrets.token_hex(4)}")
    try:
        beside.mkdir(mode=0o700)
        with _opened(source) as archive:
            manifest = _unpack(archive, source, beside, progress)
        _rename_inside(beside, manifest, folder.absolute())
        if folder.exists():
            folder.rmdir()
        beside.rename(folder.absolute())
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return manifest


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with source.open("rb") as raw:
            if raw.read(2) != GZIP:
                raise NoArchive(_foreign(source))
            raw.seek(0)
            with tarfile.open(fileobj=raw, mode="r:gz") as archive:
                yield archive
    except (EOFError, zlib.error, tarfile.TarError) as error:
        raise BackupError(_cut_off(source)) from error
    except OSError as error:
        if error.errno is None:  # gzip's own complaint: what it checks at the end does not agree
            raise BackupError(_cut_off(source)) from error
        if error.errno in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR):
            raise NoArchive(str(unreadable(source, error))) from error
        if error.filename == str(source) or error.errno == errno.EACCES:
            raise unreadable(source, error) from error
        raise


def _unpack(archive: tarfile.TarFile, source: Path, folder: Path, progress: Progress) -> Manifest:
    manifest = _read_manifest(archive, source)
    left = {one.name: one for one in manifest.files}
    total, done = sum(one.bytes for one in manifest.files), 0
    while (member := archive.next()) is not None:
        held = left.pop(member.name, None)
        content = archive.extractfile(member) if member.isreg() else None  # it would follow a link
        if held is None or content is None or not _is_inside(member.name):
            raise BackupError(_unexpected(source, member.name))
        done += _unpack_one(content, held, folder, source)
        progress(done, total)
    if left:
        raise BackupError(_unexpected(source, min(left)))
    return manifest


def _read_manifest(archive: tarfile.TarFile, source: Path) -> Manifest:
    first = archive.next()
    content = archive.extractfile(first) if first and first.isreg() and first.name == MANIFEST else None
    if content is None or first is None or first.size > MOST_MANIFEST_BYTES:
        raise NoArchive(_foreign(source))
    try:
        manifest = msgspec.json.decode(content.read(), type=Manifest)
    except msgspec.DecodeError as error:
        raise BackupError(say(f"{source} 的清单无法读懂", f"the manifest of {source} cannot be read")) from error
    if manifest.form != FORM:
        raise BackupError(
            say(
                f"{source} 是第 {manifest.form} 版的备份，本程序读第 {FORM} 版",
                f"{source} is a backup of form {manifest.form}, this program reads form {FORM}",
            )
        )
    return manifest


def _unpack_one(content: IO[bytes], held: Held, folder: Path, source: Path) -> int:
    path = folder / held.name
    for above in reversed(PurePosixPath(held.name).parents):  # `parents=True` would leave those between open to all
        (folder / above).mkdir(mode=0o700, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, held.mode & 0o777)
    with os.fdopen(handle, "wb") as file:
        while part := content.read(CHUNK_BYTES):
            digest.update(part)
            size += len(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    if size != held.bytes or digest.hexdigest() != held.sha256:
        text = say(
            f"{source} 中的 {held.name} 与清单的摘要不符，什么都没有恢复；请换一份备份",
            f"{held.name} in {source} does not agree with its digest, nothing was restored; take another backup",
        )
        raise BackupError(text)
    return size


def _foreign(source: Path) -> str:
    return say(f"{source} 不是本程序的备份", f"{source} is no backup of this program")


def _cut_off(source: Path) -> str:
    return say(
        f"{source} 不完整或已损坏，什么都没有恢复；请换一份备份",
        f"{source} is cut off or damaged, nothing was restored; take another backup",
    )


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _unexpected(source: Path, name: str) -> str:
    return say(
        f"{source} 的内容与清单不符({name})，什么都没有恢复；请换一份备份",
        f"what is in {source} is not what its manifest says ({name}), nothing was restored; take another backup",
    )


def _rename_inside(folder: Path, manifest: Manifest, home: Path) -> None:
    """Files that hold the folder's name hold the new one."""
    for name in REWRITTEN if manifest.folder else ():
        path = folder / name
        if path.exists():
            path.write_text(path.read_text("utf-8").replace(manifest.folder, str(home)), "utf-8")
