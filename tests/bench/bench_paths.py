"""What probing costs a server: `python tests/bench/bench_paths.py`. Prints a table, asserts nothing. Needs root (namespaces).

CPU of the probing thread alone, over the time that the rate takes: a matrix of 200 cells once a minute, 500 echoes a second
to 500 targets, a stream of 50 packets a second and its far end.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from namespaces import Namespace, Network

from agent.broker import Secret
from agent.sources import Surroundings, _path_targets, isolation_probe, isolation_responder, path_probe, path_reflector

ROUNDS = 3
MATRIX_SECONDS = 60.0
MATRIX_LIMIT, ECHO_LIMIT = 0.02, 0.10
CELLS = 200
TARGETS, ECHO_ROUNDS_SECONDS = 500, 4.0
STREAM_PACKETS, STREAM_SPACING_SECONDS = 200, 0.02


def main() -> None:
    with Network("bench") as network, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        network.add("near", "far")
        network.cable("near", "eth0", "far", "eth0")
        network["near"].ip("addr add 10.3.0.1/16 dev eth0")
        network["far"].ip("addr add 10.3.0.2/16 dev eth0")
        key = Path(folder, "probe.key")
        key.write_text("a key of this bench and of no other")
        secret = Secret(file=str(key))
        print(f"{'what':<58}{'share of a core':>16}{'limit':>8}")
        matrix(network, secret, stack)
        echoes(network)
        stream(network, secret, stack)


def matrix(network: Network, secret: Secret, stack: ExitStack) -> None:
    """Half of the cells are open, half are dropped at the far end."""
    ports = range(10_000, 10_000 + CELLS)
    ways = tuple(f"{'udp' if port % 2 else 'tcp'}/{port}" for port in ports)
    config = isolation_responder.Config(key=secret, listen=ways, addresses=("10.3.0.2",))
    responder = isolation_responder.Source(config, Surroundings("far"))
    opened(network["far"], responder, stack)
    network["far"].nft(
        f"table inet f {{\nchain c {{\ntype filter hook input priority 0\nmeta l4proto {{ tcp, udp }} th dport "
        f"{ports[CELLS // 2]}-{ports[-1]} drop\n}}\n}}"
    )
    target = isolation_probe.Target(
        zone="far", address="10.3.0.2", allowed=ways[: CELLS // 2], blocked=ways[CELLS // 2 :]
    )
    prober = isolation_probe.Source(
        isolation_probe.Config(zone="near", key=secret, targets=(target,)), Surroundings("near")
    )
    opened(network["near"], prober, stack)

    def once() -> None:
        readings = network["near"].do(prober.collect())
        cells = [one for one in readings if one.name == "isolation_cell"]
        assert len(cells) == CELLS and all(one.fields["is_as_expected"] for one in cells)

    spent = cpu(network["near"], once)
    far = cpu(network["far"], once)
    tell(f"isolation_probe, {CELLS} cells a minute", spent / MATRIX_SECONDS, MATRIX_LIMIT)
    tell("isolation_responder for them", far / MATRIX_SECONDS)


def echoes(network: Network) -> None:
    """Every target is an address of the far end."""
    addresses = [f"10.3.{number // 250 + 1}.{number % 250 + 1}" for number in range(TARGETS)]
    network["far"].ip("\n".join(f"addr add {address}/32 dev eth0" for address in addresses))
    targets = tuple(_path_targets.Target(name=f"t{number}", address=one) for number, one in enumerate(addresses))
    packets = int(ECHO_ROUNDS_SECONDS)
    config = path_probe.Config(targets=targets, packets=packets, spacing_seconds=1.0, per_second=500)
    probe = path_probe.Source(config, Surroundings("near"))
    network["near"].do(probe.open())

    def once() -> None:
        readings = network["near"].do(probe.collect())
        assert all(one.fields["loss_ratio"] == 0 for one in readings)

    spent = cpu(network["near"], once)
    tell(f"path_probe, {TARGETS} echoes a second to {TARGETS} targets", spent / ECHO_ROUNDS_SECONDS, ECHO_LIMIT)


def stream(network: Network, secret: Secret, stack: ExitStack) -> None:
    config = path_reflector.Config(key=secret, addresses=("10.3.0.2",))
    opened(network["far"], path_reflector.Source(config, Surroundings("far")), stack)
    target = _path_targets.Target(name="far", kind="stream", address="10.3.0.2")
    probing = path_probe.Config(targets=(target,), key=secret, stream_packets=STREAM_PACKETS)
    probe = path_probe.Source(probing, Surroundings("near"))
    opened(network["near"], probe, stack)

    def once() -> None:
        [reading] = network["near"].do(probe.collect())
        assert reading.fields["loss_ratio"] == 0

    seconds = STREAM_PACKETS * STREAM_SPACING_SECONDS
    tell("path_probe, a stream of 50 packets a second", cpu(network["near"], once) / seconds)
    tell("path_reflector for it", cpu(network["far"], once) / seconds)


def opened(
    inside: Namespace,
    source: isolation_responder.Source | isolation_probe.Source | path_probe.Source | path_reflector.Source,
    stack: ExitStack,
) -> None:
    inside.do(source.open())
    stack.callback(lambda: inside.do(source.close()))


def cpu(inside: Namespace, once: Callable[[], None]) -> float:
    """CPU seconds of a namespace's thread for one round: the least of some."""
    found = []
    for _ in range(ROUNDS):
        began = inside.call(time.thread_time)
        once()
        found.append(inside.call(time.thread_time) - began)
    return min(found)


def tell(what: str, share: float, limit: float | None = None) -> None:
    shown = f"{limit:.0%}" if limit else ""
    mark = "  over the limit" if limit and share > limit else ""
    print(f"{what:<58}{share:>16.2%}{shown:>8}{mark}", flush=True)


if __name__ == "__main__":
    main()
