"""Two hypervisor hosts with a real libvirt and a real QEMU (emulated processors, no KVM), each in its namespace of a Lan.

The guest is a boot sector that echoes what comes in on its serial line, so that what it answers went through its memory,
its processor and its devices, also after they moved. A guest's operating system and its disks are not shown.
"""

from pathlib import Path

from hospital.lan import Lan
from servers import program, until

GUEST = "his-guest"
SERIAL_PORT = 7000

LIBVIRTD = """listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "11111111-2222-4333-8444-5555555555{number:02}"
log_outputs = "3:file:{folder}/libvirtd.log"
"""

QEMU = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
"""

START = """set -e
mount --make-rprivate /
mkdir -p /var/cache/libvirt
for name in etc/libvirt var/lib/libvirt var/log/libvirt run; do
  mkdir -p /$name; mount -t tmpfs none /$name
done
mount --bind {cache} /var/cache/libvirt
mount --bind {folder}/hosts /etc/hosts
cp {folder}/libvirtd.conf {folder}/qemu.conf /etc/libvirt/
mkdir -p /run/lock /etc/libvirt/qemu
hostname {host}
echo $$ > {folder}/inside.pid
exec {libvirtd} --listen -p /run/libvirtd.pid
"""

DOMAIN = """<domain type='qemu'><name>{guest}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='fd'/></os>
<cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='floppy'><driver name='qemu' type='raw'/><source file='{image}'/><target dev='fda'/><readonly/></disk>
<serial type='tcp'><source mode='connect' host='{server}' service='{port}'/><protocol type='raw'/><target port='0'/></serial>
<memballoon model='none'/></devices></domain>
"""

BOOT_SECTOR = bytes.fromhex(
    "fa 31c0 8ed8 8ed0 bc007c"  # no interrupts; segments 0, the stack below 7c00
    "c7063000 597c a33200"  # interrupt 0c (the serial line's) goes to 7c59
    "bafb03 b083 ee baf803 b001 ee 42 31c0 ee"  # 115200 bits a second
    "bafb03 b003 ee baf903 b001 ee"  # 8N1; interrupt when something came
    "bafa03 b007 ee bafc03 b00b ee"  # queue on and empty; the line is open
    "e421 24ef e621"  # the controller lets interrupt 4 through
    "fa bafd03 ec a801 740b"  # look: has something come? else sleep
    "a820 74f3 baf803 ec ee ebec"  # may something go? read it, send it, look again
    "fb f4 ebe8"  # sleep until the next interrupt, look again
    "50 b020 e620 58 cf"  # the interrupt itself only wakes
)


class Hypervisor:
    """One host on `host` of the Lan. cache: where what libvirt learns of QEMU is kept, which takes it 4 s to learn."""

    def __init__(self, lan: Lan, host: str, folder: Path, cache: Path) -> None:
        self.lan, self.host, self.cache = lan, host, cache
        self.folder = folder / host
        self.folder.mkdir()

    def start(self) -> None:
        """Start libvirt; needs root."""
        libvirtd = program("libvirtd", "libvirt-daemon-system")
        program("qemu-system-x86_64", "qemu-system-x86")
        number = self.lan.hosts.index(self.host) + 1
        (self.folder / "libvirtd.conf").write_text(LIBVIRTD.format(number=number, folder=self.folder))
        (self.folder / "qemu.conf").write_text(QEMU)
        names = [f"{self.lan.address(host)} {host}\n" for host in self.lan.hosts]
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(names))
        script = self.folder / "start.sh"
        script.write_text(START.format(folder=self.folder, cache=self.cache, host=self.host, libvirtd=libvirtd))
        words = [program("unshare", "util-linux"), "-m", "-u", "bash", script]
        self.lan.start(self.host, *words, log=self.folder / "out.log")
        until(lambda: self.virsh("uri", is_checked=False).strip() == "qemu:///system", 120)

    @property
    def inside(self) -> list[str]:
        """What runs a program within the host."""
        pid = (self.folder / "inside.pid").read_text().strip()
        return [program("nsenter", "util-linux"), "-t", pid, "-m", "-u"]

    def virsh(self, *words: str, is_checked: bool = True) -> str:
        """What virsh prints on the host."""
        if not (self.folder / "inside.pid").exists():
            return ""
        argv = [*self.inside, "virsh", "-q", "-c", "qemu:///system", *words]
        return self.lan.run(self.host, *argv, is_checked=is_checked)

    def start_guest(self, server: str) -> None:
        """Define and start the guest; its serial line leads to `server`."""
        image, domain = self.folder / "guest.img", self.folder / "guest.xml"
        image.write_bytes(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(1_474_560 - 512))
        domain.write_text(DOMAIN.format(guest=GUEST, image=image, server=server, port=SERIAL_PORT))
        self.virsh("define", str(domain))
        self.virsh("start", GUEST)

    def state(self) -> str:
        """The guest's state and its reason as virsh says it, empty where there is none."""
        return self.virsh("domstate", GUEST, "--reason", is_checked=False).strip()

    def migrate(self, other: "Hypervisor") -> None:
        """Move the running guest to another host, and all that is known of it."""
        address = self.lan.address(other.host)
        ways = [f"qemu+tcp://{address}/system", f"tcp://{address}"]
        self.virsh("migrate", "--live", "--persistent", "--undefinesource", GUEST, *ways)
