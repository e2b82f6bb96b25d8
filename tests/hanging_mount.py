"""A real mount that hangs: a FUSE file system whose server, this process, answers when it is told to and not before.

It needs /dev/fuse and the right to mount; `unshare -Urm` gives the latter to anybody. A question that the server has
taken and not answered puts the asker into uninterruptible sleep: not even SIGKILL ends it, as with a dead disk.
A question that the server has not taken hangs as well, and there SIGKILL helps, as with a dead NFS server.
"""

import ctypes
import os
import struct
from pathlib import Path
from typing import Self

INIT, STATFS = 26, 17
HEADER = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
ANSWER = struct.Struct("<IiQ")  # length, error, unique
INIT_ANSWER = struct.Struct("<IIIIHHII32x")
STATFS_ANSWER = struct.Struct("<QQQQQIII4x24x")  # blocks, free, available, files, free, block size, name, fragment

MS_NOSUID_NODEV = 6
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class HangingMount:
    """A file system of type fuse.hanging at `path`, 1000 blocks of 4096 bytes, 250 of them in use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self._device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
        if _libc.mount(b"hanging", os.fsencode(path), b"fuse.hanging", MS_NOSUID_NODEV, options.encode()):
            raise OSError(ctypes.get_errno(), "cannot mount a FUSE file system here")
        self._answer(self.take(INIT), INIT_ANSWER.pack(7, 31, 65536, 0, 12, 9, 4096, 1))

    def take(self, opcode: int = STATFS) -> int:
        """Take the next question of this kind from the kernel, waiting for it; its number. Others are refused."""
        while True:
            _, kind, unique, *_ = HEADER.unpack_from(os.read(self._device, 1 << 17))
            if kind == opcode:
                return int(unique)
            os.write(self._device, ANSWER.pack(ANSWER.size, -38, unique))

    def answer(self, unique: int) -> None:
        """Answer a question for the space."""
        self._answer(unique, STATFS_ANSWER.pack(1000, 750, 750, 100, 80, 4096, 255, 4096))

    def _answer(self, unique: int, body: bytes) -> None:
        os.write(self._device, ANSWER.pack(ANSWER.size + len(body), 0, unique) + body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._device)  # whoever still waits for an answer gets an error now
        _libc.umount2(os.fsencode(self.path), MNT_DETACH)
