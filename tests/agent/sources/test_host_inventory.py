"""host_inventory on recorded roots of the systems that hospitals run, and on this machine."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from declared import undeclared

from agent.catalogue import load
from agent.errors import SourceError
from agent.sources import Surroundings
from agent.sources.host_inventory import Config, Source

RECORDED = Path(__file__).parent / "recorded_host_inventory"


def look(root: Path, system: str = "linux") -> Mapping[str, object]:
    readings = Source(Config(), Surroundings("his-db", root=root, system=system)).collect()
    assert undeclared("host_inventory", readings) == []
    return readings[0].fields


def test_recorded_kylin_on_an_arm_server_is_a_machine() -> None:
    assert look(RECORDED / "kylin_arm_machine") == {
        "is_up": True,
        "is_virtual": False,
        "cores_count": 8.0,
        "memory_bytes": 273804165120.0,
        "os_name": "Kylin Linux Advanced Server",
        "os_version": "V10 (Tercel)",
        "vendor": "Huawei",
        "model": "TaiShan 200 (Model 2280)",
    }


def test_recorded_uos_on_vmware_is_a_guest() -> None:
    assert look(RECORDED / "uos_vmware_guest") == {
        "is_up": True,
        "is_virtual": True,
        "hypervisor": "vmware",
        "cores_count": 4.0,
        "memory_bytes": 16656629760.0,
        "os_name": "UnionTech OS Server 20",
        "os_version": "20",
        "vendor": "VMware, Inc.",
        "model": "VMware7,1",
    }


def test_recorded_openeuler_on_kvm_for_arm_is_a_guest_though_arm_has_no_hypervisor_flag() -> None:
    fields = look(RECORDED / "openeuler_kvm_arm_guest")
    assert [fields[name] for name in ("is_virtual", "hypervisor", "os_name", "os_version")] == [
        True,
        "kvm",
        "openEuler",
        "24.03 (LTS)",
    ]


def test_recorded_first_domain_of_xen_is_the_machine_and_placeholders_are_no_vendor() -> None:
    assert look(RECORDED / "xen_host") == {
        "is_up": True,
        "is_virtual": False,
        "cores_count": 2.0,
        "memory_bytes": 8589934592.0,
        "os_name": "openEuler",
        "os_version": "22.03",
    }


def test_recorded_guest_that_hides_its_hypervisor_is_known_by_the_processors_flag() -> None:
    fields = look(RECORDED / "flag_only_guest")
    assert (fields["is_virtual"], "hypervisor" in fields) == (True, False)


def test_recorded_device_tree_names_hypervisor_and_model() -> None:
    fields = look(RECORDED / "device_tree_guest")
    assert [fields[name] for name in ("is_virtual", "hypervisor", "model", "os_version")] == [
        True,
        "kvm",
        "linux,dummy-virt",
        "3.20.1",
    ]


def test_recorded_maker_of_machines_and_guests_is_told_by_the_model() -> None:
    assert look(RECORDED / "hyperv_guest")["hypervisor"] == "hyper-v"


def test_recorded_x86_processor_without_the_flag_is_a_machine() -> None:
    assert look(RECORDED / "x86_machine")["is_virtual"] is False


def test_arm_board_that_tells_nothing_of_its_maker_is_neither_machine_nor_guest(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal:         1000 kB\n")
    assert look(tmp_path) == {"is_up": True, "cores_count": 1.0, "memory_bytes": 1024000.0}


@pytest.mark.parametrize("root", sorted(path.name for path in RECORDED.iterdir() if path.is_dir()))
def test_no_serial_number_goes_out(root: str) -> None:
    assert not any("SN-" in str(value) for value in look(RECORDED / root).values())


def test_root_without_proc_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cpuinfo"):
        look(tmp_path)


def test_this_machine_tells_its_cores_memory_and_system() -> None:
    fields = look(Path("/"))
    assert {"is_up", "is_virtual", "cores_count", "memory_bytes", "os_name"} <= fields.keys()


@pytest.mark.parametrize(("system", "name"), [("win32", "Windows"), ("darwin", "macOS")])
def test_off_linux_the_system_is_named_without_reading_files(system: str, name: str) -> None:
    fields = look(Path("/nowhere"), system)
    assert (fields["os_name"], fields["is_up"], "is_virtual" in fields) == (name, True, False)


def test_proof_of_life_rides_along_oftener_than_the_catalogue_lets_it_grow_stale() -> None:
    assert Config().interval_seconds == 300.0 < load().measurements["asset_info"].staleness_seconds
