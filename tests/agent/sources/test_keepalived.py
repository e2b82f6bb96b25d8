"""keepalived's file as it is written, and the roles of this very host; the real keepalived is in tests/hospital/test_vip.py."""

from pathlib import Path

import pytest
from declared import undeclared

from agent.errors import NoData, SourceError
from agent.sources import Reading, Surroundings
from agent.sources._keepalived_conf import Instance, read_instances
from agent.sources.keepalived import Config, Source

HIS = """
! two instances, one in another file
global_defs { router_id lb-1 } # virtual_ipaddress { 10.9.9.9 }
include parts/*.conf
vrrp_instance "HIS" {
    state MASTER
    priority 150
    virtual_ipaddress {
        %s/24 brd 10.78.0.255 dev eth0 label eth0:1
        10.78.0.101/24
    }
    virtual_ipaddress_excluded { 10.78.0.102 }
    track_script { chk_his }
}
vrrp_instance V6 { virtual_ipaddress { fe80::1/64 } }
"""
PACS = "vrrp_instance PACS { virtual_ipaddress { 203.0.113.9 } }"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/keepalived/parts").mkdir(parents=True)
    (tmp_path / "etc/keepalived/parts/pacs.conf").write_text(PACS)
    return tmp_path


def write(root: Path, text: str) -> Path:
    file = root / "etc/keepalived/keepalived.conf"
    file.write_text(text)
    return file


def test_instances_are_read_with_includes_quotes_and_comments(root: Path) -> None:
    assert read_instances(write(root, HIS % "10.78.0.100")) == [
        Instance("PACS", 100, ("203.0.113.9",)),
        Instance("HIS", 150, ("10.78.0.100", "10.78.0.101", "10.78.0.102")),
    ]


def test_file_that_includes_itself_and_one_cut_short_end(root: Path) -> None:
    assert read_instances(write(root, "include keepalived.conf\nvrrp_instance A {")) == []
    assert read_instances(write(root, "vrrp_instance A { virtual_ipaddress { 10.0.0.1"))[0].addresses == ("10.0.0.1",)


async def look(source: Source) -> list[Reading]:
    readings = await source.collect()
    assert undeclared("keepalived", readings) == []
    return readings


async def test_address_of_this_host_makes_it_master_and_a_change_is_told(root: Path) -> None:
    source = Source(Config(arp=False), Surroundings("lb-1", root=root))
    write(root, "vrrp_instance HIS { priority 150 virtual_ipaddress { 127.0.0.1/8 } }")
    role, manager = await look(source)
    assert role.fields == {"is_master": True, "priority_count": 150}
    assert manager.name == "quorum" and manager.tags == {"cluster": "HIS"}
    write(root, "vrrp_instance HIS { priority 150 virtual_ipaddress { 203.0.113.9 } }")
    role, change, _ = await look(source)
    assert role.fields["is_master"] is False
    assert (change.name, change.fields) == ("role_change", {"became_master": False})
    assert len(await look(source)) == 2


async def test_host_without_keepalived_has_nothing_of_the_kind(tmp_path: Path) -> None:
    with pytest.raises(NoData, match="keepalived"):
        await Source(Config(), Surroundings("lb-1", root=tmp_path)).collect()


async def test_file_that_cannot_be_read_is_one_sentence(root: Path) -> None:
    (root / "etc/keepalived/keepalived.conf").mkdir()
    with pytest.raises(SourceError, match=r"keepalived\.conf"):
        await Source(Config(), Surroundings("lb-1", root=root)).collect()
