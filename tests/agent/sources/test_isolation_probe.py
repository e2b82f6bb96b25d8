"""isolation_probe on the loopback: forged and replayed words change nothing, and the file's mistakes are said."""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from servers import free_port, tcp_server, until_async

from agent import language
from agent.broker import Secret
from agent.config import read_config
from agent.documents import FileMistakes
from agent.errors import SourceError
from agent.language import speaking
from agent.sources import Reading, Surroundings
from agent.sources._attempt import Attempt, Came
from agent.sources._control import Control
from agent.sources._proof import LEAST_KEY_CHARACTERS, Keys, Message, read_key, seal, unseal
from agent.sources._verdict import Evidence, Outcome, judge, worst
from agent.sources._ways import Way, read_way
from agent.sources._ways_out import HEADER, QUESTION_END, digest
from agent.sources._witness import Witness
from agent.sources.isolation_probe import Config, Source, Target
from agent.sources.isolation_responder import Config as ResponderConfig
from agent.sources.path_reflector import Config as ReflectorConfig

KEY = b"a key of this test only"
TCP = "tcp/22"


@pytest.fixture
def key(tmp_path: Path) -> Secret:
    path = tmp_path / "probe.key"
    path.write_bytes(KEY)
    return Secret(file=str(path))


@contextlib.asynccontextmanager
async def speaker(hear: Callable[[bytes], bytes | None]) -> AsyncIterator[int]:
    """Somebody on a loopback port who says what `hear` says; gives the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            answer = hear(line)
            if answer is None:
                break
            writer.write(answer)
        writer.close()

    async with tcp_server(serve) as port:
        yield port


async def round_of(key: Secret | None, target: Target) -> list[Reading]:
    source = Source(
        Config(zone="office", key=key, targets=(target,), timeout_seconds=10, control_retries=0),
        Surroundings("office-probe"),
    )
    await source.open()
    try:
        return await source.collect()
    finally:
        await source.close()


def cell(readings: list[Reading]) -> dict[str, object]:
    [one] = [reading for reading in readings if reading.name == "isolation_cell"]
    return dict(one.fields)


async def test_answer_without_the_key_is_no_reach_and_no_isolation(key: Secret) -> None:
    """A box on the way accepts everything and echoes; the responder is asked and has seen nothing."""
    witness = Witness(Keys(KEY), "medical-probe", lambda: 0.0)
    async with speaker(lambda line: line) as port, speaker(witness.hear) as control:
        witness.ways = {Way("tcp", port)}
        for policy in ({"allowed": (f"tcp/{port}",)}, {"blocked": (f"tcp/{port}",)}):
            found = cell(
                await round_of(key, Target(zone="medical", address="127.0.0.1", control_port=control, **policy))
            )
            assert (found["outcome"], found["is_reached"], found["is_as_expected"]) == (7, False, False)


async def test_forged_testimony_counts_as_none(key: Secret) -> None:
    """Somebody answers at the control port with a key of his own that nothing came."""
    liar = Witness(Keys(b"a key of somebody else"), "medical-probe", lambda: 0.0)
    port = free_port()
    liar.ways = {Way("tcp", port)}

    def lie(line: bytes) -> bytes:
        words = line.decode().split()
        if words[1] == "hello":
            return seal(b"a key of somebody else", "here", "medical-probe", "boot", words[3], f"tcp/{port}")
        return seal(b"a key of somebody else", "saw", "medical-probe", "boot", words[3], "-")

    async with speaker(lie) as control:
        target = Target(zone="medical", address="127.0.0.1", control_port=control, blocked=(f"tcp/{port}",))
        readings = await round_of(key, target)
    assert cell(readings)["outcome"] == Outcome.NO_CONTROL and not cell(readings)["is_as_expected"]
    [control_reading] = [one for one in readings if one.name == "isolation_control"]
    assert control_reading.fields == {"is_seen": False}


async def test_control_that_is_not_seen_says_why_once_and_what_to_do(
    key: Secret, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness(Keys(KEY), "medical-probe", lambda: 0.0)
    stranger = Witness(Keys(None, {"other-probe": KEY}), "medical-probe", lambda: 0.0)

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def reasons(target: Target, timeout_seconds: float = 10.0) -> list[str]:
        caplog.clear()
        config = Config(zone="office", key=key, call_port=free_port(), targets=(target,), control_retries=0)
        config = msgspec.structs.replace(config, timeout_seconds=timeout_seconds)
        source = Source(config, Surroundings("office-probe"))
        await source.open()
        with speaking("en"), caplog.at_level(logging.WARNING):
            for _ in range(2):
                await source.collect()
        await source.close()
        return caplog.messages

    def target(control: int, **more: bool) -> Target:
        return Target(
            zone="medical", address="127.0.0.1", control_port=control, blocked=(f"tcp/{free_port()}",), **more
        )

    closed = free_port()
    [refused] = await reasons(target(closed))
    assert refused.startswith(
        f"the control of medical(127.0.0.1) TCP {closed} is not seen: the connection was refused; see"
    )
    async with speaker(stranger.hear) as control:
        [unknown] = await reasons(target(control))
    assert "another key, or no 'office-probe' in its 'keys'" in unknown
    async with tcp_server(say_nothing) as control:
        [mute] = await reasons(target(control), timeout_seconds=1.0)
    assert "no answer; let the control port through" in mute
    [uncalled] = await reasons(target(closed, calls=True), timeout_seconds=1.0)
    assert "no responder has called at our TCP" in uncalled
    async with speaker(witness.hear) as control:
        assert await reasons(target(control)) == []


def source_of(key: Secret, *targets: Target, **more: float | int | str) -> Source:
    config = Config(zone="outside", key=key, targets=targets, timeout_seconds=10, call_port=free_port())
    return Source(msgspec.structs.replace(config, **more), Surroundings("outside-probe"))


async def test_hole_that_was_seen_before_the_control_died_stays_a_hole(key: Secret) -> None:
    """The first go finds the way open and loses its testimony; in the second nothing is there any more."""
    witness = Witness(Keys(KEY), "medical-probe", lambda: 0.0)
    asked: list[str] = []

    def hear_once(line: bytes) -> bytes | None:
        asked.append(line.split()[1].decode())
        return witness.hear(line) if len(asked) == 1 else None

    async with speaker(hear_once) as port:
        target = Target(zone="medical", address="127.0.0.1", control_port=free_port(), blocked=(f"tcp/{port}",))
        source = source_of(key, target, control_retries=1, control_pause_seconds=0)
        await source.open()
        found = cell(await source.collect())
        await source.close()
    assert asked == ["probe", "probe"]
    assert found["is_breached"] is True


async def test_zone_is_seen_only_when_all_its_responders_are(key: Secret) -> None:
    witness = Witness(Keys(KEY), "medical-probe", lambda: 0.0)
    async with speaker(witness.hear) as control:
        seen = Target(zone="medical", address="127.0.0.1", control_port=control)
        dead = Target(zone="medical", address="127.0.0.1", control_port=free_port())
        for targets in ((seen, dead), (dead, seen)):
            source = source_of(key, *targets, control_retries=0)
            await source.open()
            [reading] = await source.collect()
            await source.close()
            assert (reading.name, reading.fields) == ("isolation_control", {"is_seen": False})


async def test_only_responders_that_are_to_call_are_let_in(key: Secret) -> None:
    port = free_port()
    for calling, is_in in (("127.0.0.1", True), ("127.0.0.2", False)):
        target = Target(zone="medical", address=calling, calls=True, blocked=(f"tcp/{free_port()}",))
        source = source_of(key, target, call_port=port, control_retries=0)
        await source.open()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if is_in:
            await until_async(lambda source=source: source.has_calls(["127.0.0.1"]))
        else:
            assert await reader.read() == b""  # it was shown the door
        assert source.has_calls(["127.0.0.1"]) is is_in
        writer.close()
        await source.close()


def test_key_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for characters, is_enough in ((LEAST_KEY_CHARACTERS - 1, False), (LEAST_KEY_CHARACTERS, True)):
        path.write_text("4f9c1e7ab2d86035e"[:characters] + "\n")
        with contextlib.nullcontext() if is_enough else pytest.raises(SourceError, match="16"):
            assert len(read_key(Secret(file=str(path)))) == characters


async def test_responder_that_starts_anew_in_the_round_is_named() -> None:
    class Restarted:
        async def exchange(self, line: bytes) -> bytes:
            return Witness(Keys(KEY), "medical-probe", lambda: 0.0).hear(line) or b""  # another boot each time

    control = Control(KEY, "office-probe", Restarted())
    here = await control.hello()
    assert here is not None and await control.ask(here, ["a"]) is None
    with speaking("en"):
        assert await control.ask(here, ["a"]) is None
    assert control.why == "the responder started anew in the middle of the round"


async def test_testimony_of_an_earlier_round_counts_as_none() -> None:
    """Recorded words with the right key, played again: the challenge is another."""
    witness = Witness(Keys(KEY), "medical-probe", lambda: 0.0)
    recorded: dict[str, bytes] = {}

    class Recorder:
        def __init__(self, is_playing: bool) -> None:
            self._is_playing = is_playing

        async def exchange(self, line: bytes) -> bytes:
            kind = line.split()[1].decode()
            if self._is_playing:
                return recorded[kind]
            recorded[kind] = witness.hear(line) or b""
            return recorded[kind]

    first = Control(KEY, "office-probe", Recorder(False))
    here = await first.hello()
    assert here is not None and await first.ask(here, ["a"]) == frozenset()
    again = Control(KEY, "office-probe", Recorder(True))
    assert await again.hello() is None
    assert await again.ask(here, ["a"]) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[:-2] + b"0\n",
        lambda line: line.replace(b"tcp/22", b"tcp/23"),
        lambda line: b"\xff" + line,
        lambda line: line[:-2] + b"\n",
        lambda line: line[:-33] + b"\n",
    ],
    ids=["another digest", "another word", "no ASCII", "half a digest", "no digest"],
)
def test_line_that_was_touched_says_nothing(damage: Callable[[bytes], bytes]) -> None:
    line = seal(KEY, "probe", "his-db-1", "tcp/22", "5" * 32)
    assert unseal(KEY, line) == Message("probe", ("his-db-1", "tcp/22", "5" * 32))
    touched = damage(line)
    assert touched == line or unseal(KEY, touched) is None


HEARD = Evidence(frozenset({"tcp/22"}), frozenset())


@pytest.mark.parametrize(
    ("came", "testimony", "outcome"),
    [
        (Came.ANSWER, HEARD, Outcome.REACHED),
        (Came.ANSWER, None, Outcome.REACHED),
        (Came.SILENCE, Evidence(frozenset(), frozenset({"n"})), Outcome.REACHED),
        (Came.ACCEPTED, Evidence(frozenset(), frozenset({"n"})), Outcome.REACHED),
        (Came.SILENCE, HEARD, Outcome.DROPPED),
        (Came.REFUSAL, HEARD, Outcome.REFUSED),
        (Came.UNREACHABLE, HEARD, Outcome.UNREACHABLE),
        (Came.SILENCE, None, Outcome.NO_CONTROL),
        (Came.REFUSAL, None, Outcome.NO_CONTROL),
        (Came.ACCEPTED, HEARD, Outcome.ANSWERED_BY_ANOTHER),
        (Came.REFUSAL, Evidence(frozenset({"tcp/80"}), frozenset()), Outcome.NOT_HEARD_THERE),
        (Came.SILENCE, Evidence(frozenset({"tcp/80"}), frozenset()), Outcome.NOT_HEARD_THERE),
        (Came.UNSENT, HEARD, Outcome.NOT_SENT),
    ],
)
def test_verdict(came: Came, testimony: Evidence | None, outcome: Outcome) -> None:
    blocked = judge(False, TCP, Attempt("n", came), testimony)
    allowed = judge(True, TCP, Attempt("n", came), testimony)
    assert blocked.outcome == allowed.outcome == outcome
    is_proven = outcome in (Outcome.REACHED, Outcome.DROPPED, Outcome.REFUSED, Outcome.UNREACHABLE)
    assert blocked.is_proven == is_proven
    assert blocked.is_breached == (outcome is Outcome.REACHED) and not allowed.is_breached
    assert blocked.is_as_expected == (is_proven and outcome is not Outcome.REACHED)
    assert allowed.is_as_expected == (outcome is Outcome.REACHED)


def test_worst_of_several_targets_stands_for_the_cell() -> None:
    reached = judge(False, TCP, Attempt("n", Came.ANSWER), HEARD)
    dropped = judge(False, TCP, Attempt("m", Came.SILENCE), HEARD)
    unknown = judge(False, TCP, Attempt("o", Came.SILENCE), None)
    assert worst([dropped, unknown, reached]) is reached
    assert worst([dropped, unknown]) is unknown


@pytest.mark.parametrize("text", ["tcp", "tcp/0", "tcp/70000", "icmp/8", "sctp/5", "TCP/22", "tcp/22 "])
def test_way_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="tcp/22"):
        read_way(text)


def test_mistakes_of_the_section_are_named_with_their_line(tmp_path: Path) -> None:
    language.choose("en")
    path = tmp_path / "agent.yaml"
    path.write_text(
        "site: north\nagent: srv-1\nbroker: {host: 127.0.0.1}\nsources:\n  isolation_probe:\n    zone: office\n"
        "    key: {env: KEY}\n    targets:\n      - {zone: medical, address: his.hospital.example}\n"
        "      - {zone: medical, address: 192.0.2.1, blocked: [tcp/22, tpc/23]}\n"
    )
    with pytest.raises(FileMistakes) as caught:
        read_config(path)
    language.choose(None)
    said = [f"{mistake.line}: {mistake.text}" for mistake in caught.value.mistakes]
    assert len(said) == 2
    assert said[0].startswith("9: ") and "must be an IP address" in said[0]
    assert said[1].startswith("10: ") and "tpc/23" in said[1]


# -- a key for each pair: what a stolen one can do

MINE, STOLEN = b"the key of the office prober", b"the key of the dmz prober, stolen"
PAIRS = Keys(None, {"office-probe": MINE, "dmz-probe": STOLEN})


def secret_of(folder: Path, key: bytes) -> Secret:
    path = folder / f"{key.split()[3].decode()}.key"
    path.write_bytes(key)
    return Secret(file=str(path))


async def test_answers_sealed_with_the_stolen_key_of_another_prober_prove_nothing(tmp_path: Path) -> None:
    """An impostor answers everything as the responder would, with the key of a machine that was taken."""
    port = free_port()

    def forge(line: bytes) -> bytes:
        words = line.decode().split()
        answers = {
            "probe": ("answer", words[-2]),
            "hello": ("here", "medical-probe", "boot", words[3], f"tcp/{port}"),
            "ask": ("saw", "medical-probe", "boot", words[3], "-"),
        }
        return seal(STOLEN, *answers[words[1]])

    async with speaker(forge) as control:
        for way in (f"tcp/{port}", f"tcp/{control}"):  # one that is silent, one that the impostor answers
            for policy in ({"allowed": (way,)}, {"blocked": (way,)}):
                mine = Target(
                    zone="medical",
                    address="127.0.0.1",
                    control_port=control,
                    key=secret_of(tmp_path, MINE),
                    **policy,
                )
                found = cell(await round_of(None, mine))
                assert (found["is_proven"], found["is_as_expected"]) == (False, False), (way, policy)


def test_stolen_key_speaks_for_nobody_else_to_the_responder() -> None:
    witness = Witness(PAIRS, "medical-probe", lambda: 0.0)
    nonce, challenge = "5" * 32, "c" * 32
    assert witness.hear(seal(STOLEN, "probe", "office-probe", "tcp/22", nonce)) is None
    assert witness.hear(seal(STOLEN, "ask", "office-probe", challenge, nonce)) is None
    assert witness.hear(seal(STOLEN, "probe", "unknown", "tcp/22", nonce)) is None
    assert witness.strangers_count == 3


def test_nonce_that_another_prober_repeats_has_not_come() -> None:
    """Whoever sees a nonce on the wire and has a key of its own cannot make it look as if it had arrived."""
    witness = Witness(PAIRS, "medical-probe", lambda: 0.0)
    nonce = "5" * 32
    assert witness.hear(seal(STOLEN, "probe", "dmz-probe", "tcp/22", nonce))

    def seen_by(name: str, key: bytes) -> str:
        answer = unseal(key, witness.hear(seal(key, "ask", name, "c" * 32, nonce)) or b"")
        assert answer is not None
        return answer.words[3]

    assert seen_by("office-probe", MINE) == "-"
    assert seen_by("dmz-probe", STOLEN) == nonce


def test_shared_key_is_for_those_who_have_none_of_their_own() -> None:
    keys = Keys(KEY, {"office-probe": MINE})
    assert keys.unseal(seal(KEY, "hello", "another", "c")) and keys.unseal(seal(MINE, "hello", "office-probe", "c"))
    assert keys.unseal(seal(KEY, "hello", "office-probe", "c")) is None


async def test_dns_question_counts_for_the_prober_whose_key_it_carries() -> None:
    """Through a resolver that forwards: the responder hears UDP 53 by its own key of each prober."""
    witness = Witness(PAIRS, "medical-probe", lambda: 0.0)
    nonce = "5" * 32
    labels = [nonce, digest(MINE, nonce), "probe", "test"]
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    question = HEADER.pack(7, 0x0100, 1, 0, 0, 0) + name + QUESTION_END
    assert witness.hear(question)
    for prober, key, seen in (("office-probe", MINE, nonce), ("dmz-probe", STOLEN, "-")):
        answer = unseal(key, witness.hear(seal(key, "ask", prober, "c", nonce)) or b"")
        assert answer is not None and answer.words[3] == seen


def test_far_end_without_any_key_is_refused() -> None:
    with pytest.raises(ValueError, match="keys"):
        ResponderConfig()
    with pytest.raises(ValueError, match="keys"):
        ReflectorConfig()
    with pytest.raises(ValueError, match="key"):
        Config(zone="office", targets=(Target(zone="medical", address="127.0.0.1"),))


def test_far_end_in_the_documents_hears_every_way_that_the_prober_there_tries(tmp_path: Path) -> None:
    """Whoever copies the two examples must not end with cells that nobody can prove."""
    text = (Path(__file__).parents[3] / "docs" / "isolation.md").read_text("utf-8")
    path, configs = tmp_path / "agent.yaml", {}
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        path.write_text(block)
        config = read_config(path)
        configs[config.agent] = {section.name: section.config for section in config.sources}
    near, far = configs["outside-probe"]["isolation_probe"], configs["medical-1"]["isolation_responder"]
    assert isinstance(near, Config) and isinstance(far, ResponderConfig)
    tried = {way for one in near.targets if one.zone == "medical" for way in (*one.allowed, *one.blocked)}
    assert "tcp/5432" in tried and tried <= set(far.listen)
