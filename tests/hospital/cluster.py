"""A real Pacemaker on corosync: each node in its namespace of a Lan, with private /run, /dev/shm and state."""

from pathlib import Path

from hospital.lan import Lan
from servers import program, until

CIB = """<cib crm_feature_set="3.0.0" validate-with="pacemaker-3.0" epoch="1" num_updates="0" admin_epoch="0">
<configuration><crm_config><cluster_property_set id="o">
<nvpair id="o1" name="dc-deadtime" value="3s"/><nvpair id="o2" name="stonith-enabled" value="false"/>
<nvpair id="o3" name="no-quorum-policy" value="ignore"/></cluster_property_set></crm_config><nodes/>
<resources><primitive id="his-app" class="ocf" provider="pacemaker" type="Dummy"><operations>
<op id="m" name="monitor" interval="2s"/></operations></primitive></resources><constraints/></configuration><status/></cib>
"""

COROSYNC = """totem {{
 version: 2
 cluster_name: hosp
 transport: udpu
 token: 1000
 crypto_cipher: none
 crypto_hash: none
}}
nodelist {{
{nodes}
}}
quorum {{
 provider: corosync_votequorum
 two_node: 1
}}
logging {{
 to_logfile: yes
 logfile: {folder}/corosync.log
 to_syslog: no
 to_stderr: no
}}
"""

START = """set -e
mount --make-rprivate /
mount -t tmpfs none /run; mkdir -p /run/lock /run/crm /run/corosync /run/resource-agents
mount -t tmpfs none /dev/shm
mount -t tmpfs none /etc/corosync; cp {folder}/corosync.conf /etc/corosync/
mount -t tmpfs none /var/lib/corosync
mount -t tmpfs none /var/lib/pacemaker; mkdir -p /var/lib/pacemaker/cib /var/lib/pacemaker/cores /var/lib/pacemaker/pengine /var/lib/pacemaker/blackbox
cp {folder}/cib.xml /var/lib/pacemaker/cib/cib.xml; chmod 600 /var/lib/pacemaker/cib/cib.xml
chown -R hacluster:haclient /var/lib/pacemaker
mount -t tmpfs none /var/log/pacemaker; chown hacluster:haclient /var/log/pacemaker /run/crm
hostname {host}
export PCMK_logfile={folder}/pacemaker.log PCMK_logfacility=none HA_logfacility=none
corosync -f &
echo $$ > {folder}/inside.pid
until corosync-quorumtool -s >/dev/null 2>&1; do sleep 0.1; done
exec pacemakerd
"""


class Node:
    """One node of the cluster on `host`."""

    def __init__(self, lan: Lan, host: str, folder: Path) -> None:
        self.lan, self.host = lan, host
        self.folder = folder / host
        self.folder.mkdir()

    def start(self) -> None:
        program("corosync", "corosync")
        program("pacemakerd", "pacemaker")
        nodes = "\n".join(
            f" node {{\n  ring0_addr: {self.lan.address(host)}\n  name: {host}\n  nodeid: {number}\n }}"
            for number, host in enumerate(self.lan.hosts, 1)
        )
        (self.folder / "corosync.conf").write_text(COROSYNC.format(nodes=nodes, folder=self.folder))
        (self.folder / "cib.xml").write_text(CIB)
        script = self.folder / "start.sh"
        script.write_text(START.format(folder=self.folder, host=self.host))
        words = [program("unshare", "util-linux"), "-m", "-u", "-i", "bash", script]
        self.lan.start(self.host, *words, log=self.folder / "out.log")
        until(lambda: (self.folder / "inside.pid").exists() and (self.folder / "inside.pid").read_text().strip())

    @property
    def inside(self) -> list[str]:
        """What runs a program within the node."""
        pid = (self.folder / "inside.pid").read_text().strip()
        return [program("nsenter", "util-linux"), "-t", pid, "-m", "-u", "-i"]

    def say(self, *argv: str) -> str:
        """What a program prints on the node, its complaints aside."""
        return self.lan.run(self.host, *self.inside, *argv, is_checked=False)

    def kill(self) -> None:
        """Loss of the node: everything on it at once."""
        for name in ("pacemakerd", "corosync"):
            self.lan.kill_all(self.host, name)
