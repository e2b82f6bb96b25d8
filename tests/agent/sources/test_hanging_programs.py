"""A real program that hangs in the place of each program that the sources of clusters and storage ask: one sentence, in time, and it is ended."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from agent.errors import SourceError
from agent.language import speaking
from agent.sources import Output, Surroundings, load_source, run_command

SETTINGS: dict[str, dict[str, object]] = {
    "ceph": {"file": "/ceph.conf"},
    "drbd": {},
    "libvirt": {"uri": "qemu+tcp://hv-1/system"},
    "multipath": {},
    "pacemaker": {},
}
PROGRAMS = {"ceph": "ceph", "drbd": "drbdsetup", "libvirt": "virsh", "multipath": "multipathd", "pacemaker": "crm_mon"}


@pytest.mark.parametrize("name", SETTINGS)
async def test_program_that_hangs_is_given_up_and_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "ceph.conf").touch()
    asked: list[str] = []
    running: list[str] = []

    async def hang(argv: Sequence[str], timeout_seconds: float) -> Output:
        asked.append(argv[0])
        running.append(argv[0])
        try:
            return await run_command(("sleep", "600"), timeout_seconds * len(asked))  # not all at the same moment
        except SourceError as error:
            raise SourceError(str(error).replace("sleep", argv[0])) from error
        finally:
            running.remove(argv[0])

    module = load_source(name)
    config = msgspec.convert({**SETTINGS[name], "deadline_seconds": 0.2}, module.Config)
    source = module.Source(config, Surroundings("host-1", root=tmp_path, command=hang))
    with speaking("en"), pytest.raises(SourceError, match=f"{PROGRAMS[name]} gave no answer within"):
        await source.collect()
    assert set(asked) == {PROGRAMS[name]}
    assert running == [], "no program outlives its round"
