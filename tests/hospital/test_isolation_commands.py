"""The agent's own commands in two namespaces: `run` with a responder, `try` with a prober, from configuration files."""

import json
import sys
from pathlib import Path

from namespaces import Network, zones
from servers import Daemon

AGENT = Path(sys.executable).with_name("infravitals-agent")


def configuration(folder: Path, name: str, sources: object) -> Path:
    path = folder / f"{name}.yaml"
    whole = {
        "site": "north",
        "agent": name,
        "broker": {"host": "127.0.0.1"},
        "state_directory": str(folder / name),
        "sources": sources,
    }
    path.write_text(json.dumps(whole))  # JSON is YAML too
    return path


def test_responder_runs_and_prober_is_tried_by_the_agent_s_commands(tmp_path: Path) -> None:
    key = tmp_path / "probe.key"
    key.write_text("a key of this test and of no other")
    secret = {"file": str(key)}
    with Network("cmd") as network:
        network.add("fw", "office", "medical")
        _, medical = zones(network, "fw", ["office", "medical"])
        network["fw"].nft(
            "table inet f {\nchain zones {\ntype filter hook forward priority 0; policy drop;\n"
            "ct state established accept\ntcp dport { 443, 7177 } accept\n}\n}"
        )
        responder = {"isolation_responder": {"key": secret, "listen": ["tcp/443", "tcp/22", "udp/161", "icmp"]}}
        far = configuration(tmp_path, "medical-probe", responder)
        target = {
            "zone": "medical",
            "address": medical,
            "allowed": ["tcp/443"],
            "blocked": ["tcp/22", "udp/161", "icmp"],
        }
        prober = {
            "zone": "office",
            "key": secret,
            "targets": [target],
            "timeout_seconds": 3,
            "control_pause_seconds": 2,
        }
        near = configuration(tmp_path, "office-probe", {"isolation_probe": prober})

        def is_listening() -> bool:
            return ":7177 " in network["medical"].run("ss", "-tln")

        argv = network["medical"].command(AGENT, "run", "-c", far)
        with Daemon(argv, tmp_path, is_listening):
            points = json.loads(network["office"].run(AGENT, "try", "isolation_probe", "-c", near, "--format", "json"))
            table = network["office"].run(AGENT, "--lang", "en", "try", "isolation_probe", "-c", near)
    cells = {point["tags"]["port"]: point["fields"] for point in points if point["name"] == "isolation_cell"}
    assert {port: fields["outcome"] for port, fields in cells.items()} == {"443": 1, "22": 2, "161": 2, "echo": 2}
    assert all(fields["is_as_expected"] for fields in cells.values())
    assert "2 (dropped (timeout))" in table
