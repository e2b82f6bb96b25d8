"""A line of two TUN interfaces in two namespaces: delays, loses, doubles and reorders what crosses it, and counts what it did.

Run as a program in a process of its own, since the truth about a delay must not wait for the test:
delay_line.py NAMESPACE_A NAMESPACE_B PLAN.json REPORT.json. It opens `wan0` in both, prints `ready`, and at SIGTERM writes what
it did. Only a stream's packets are harmed: reports and neighbours pass unharmed, after the delay. With `rate` (bits per second of IP) all
packets of a direction queue for the line, and what finds more than `QUEUE_SECONDS` of queue is dropped, as by a router.
"""

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
CLONE_NEWNET = 0x40000000
STREAM_MARKS = (b"infravitals/1 packet ", b"infravitals/1 back ")
DIRECTIONS = ("out", "back")
QUEUE_SECONDS = 0.1


def open_tun(namespace: str) -> int:
    """`wan0` in a namespace, as a file of ours."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    libc.setns(there, CLONE_NEWNET)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"wan0", IFF_TUN_NO_PI))
    libc.setns(home, CLONE_NEWNET)
    os.close(home)
    os.close(there)
    return tun


def tcp_payload_bytes(packet: bytes) -> int:
    """What an IPv4 packet of TCP carries besides its headers; 0 of anything else."""
    if packet[0] >> 4 != 4 or packet[9] != 6:
        return 0
    head = (packet[0] & 15) * 4
    return len(packet) - head - (packet[head + 12] >> 4) * 4


class Truth:
    """What became of the stream's packets in one direction, as the line itself counted, jitter by RFC 3550."""

    def __init__(self) -> None:
        self.sent = self.lost = self.delivered = self.duplicates = self.reordered = 0
        self.delays: list[float] = []
        self.payload_bytes = 0
        self.busy_seconds = 0.0
        self.jitter = 0.0
        self._highest = -1

    def deliver(self, number: int, delay: float, is_copy: bool) -> None:
        if is_copy:
            self.duplicates += 1
            return
        if number < self._highest:
            self.reordered += 1
        self._highest = max(self._highest, number)
        if self.delays:
            self.jitter += (abs(delay - self.delays[-1]) - self.jitter) / 16
        self.delays.append(delay)
        self.delivered += 1


class DelayLine:
    """plan per direction: delay, spread (uniform, either way), loss, duplicate, reorder (share held back by `held`)."""

    def __init__(self, ends: tuple[int, int], plan: dict[str, Any]) -> None:
        self._ends = ends
        self._plan = plan
        self._random = random.Random(plan["seed"])
        self.truths = {direction: Truth() for direction in DIRECTIONS}
        self._queue: list[tuple[float, int, str, float, int, bool, bytes]] = []
        self._order = 0
        self._last_due = dict.fromkeys(DIRECTIONS, 0.0)
        self._free = dict.fromkeys(DIRECTIONS, 0.0)
        self.is_ended = False

    def run(self) -> None:
        while not self.is_ended:
            wait = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else 0.05
            for end in select.select(self._ends, [], [], min(wait, 0.05))[0]:
                self._take(end)
            self._release()

    def _take(self, end: int) -> None:
        direction = DIRECTIONS[self._ends.index(end)]
        while True:
            try:
                packet = os.read(end, 2048)
            except BlockingIOError:
                return
            self._judge(direction, packet, time.monotonic())

    def _judge(self, direction: str, packet: bytes, now: float) -> None:
        rules, truth = self._plan[direction], self.truths[direction]
        is_probe = any(mark in packet for mark in STREAM_MARKS)
        delay = rules["delay"]
        number = -1
        if rate := rules.get("rate"):
            begin = max(now, self._free[direction])
            if begin - now > QUEUE_SECONDS:
                return
            seconds = len(packet) * 8 / rate
            self._free[direction] = begin + seconds
            delay += begin + seconds - now
            if payload := tcp_payload_bytes(packet):
                truth.payload_bytes += payload
                truth.busy_seconds += seconds
        if is_probe:
            number = truth.sent
            truth.sent += 1
            if self._random.random() < rules.get("loss", 0):
                truth.lost += 1
                return
            delay += self._random.uniform(-1, 1) * rules.get("spread", 0)
            if self._random.random() < rules.get("reorder", 0):
                delay += rules["held"]
            elif not rules.get("reorder", 0):
                delay = max(delay, self._last_due[direction] - now)  # in order unless told otherwise
                self._last_due[direction] = now + delay
        self._push(now + delay, direction, now, number, False, packet)
        if is_probe and self._random.random() < rules.get("duplicate", 0):
            self._push(now + delay, direction, now, number, True, packet)

    def _push(self, due: float, direction: str, taken: float, number: int, is_copy: bool, packet: bytes) -> None:
        self._order += 1
        heapq.heappush(self._queue, (due, self._order, direction, taken, number, is_copy, packet))

    def _release(self) -> None:
        while self._queue and self._queue[0][0] <= time.monotonic():
            _, _, direction, taken, number, is_copy, packet = heapq.heappop(self._queue)
            with contextlib.suppress(OSError):  # the far interface is not up yet
                os.write(self._ends[1 if direction == "out" else 0], packet)
            if number >= 0:
                self.truths[direction].deliver(number, time.monotonic() - taken, is_copy)


def main(words: list[str]) -> None:
    a, b, plan, report = words
    line = DelayLine((open_tun(a), open_tun(b)), json.loads(Path(plan).read_text()))
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    signal.signal(signal.SIGTERM, lambda *_: setattr(line, "is_ended", True))
    print("ready", flush=True)
    line.run()
    Path(report).write_text(json.dumps({name: vars(truth) for name, truth in line.truths.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
