"""An asset is taken from the reporters that the register names; without one, the first reporter owns it."""

from pathlib import Path

from deliveries import NOW, Sender, cpu, stream

from agent.catalogue import load
from agent.wire import Address, Batch, Decoded
from collector.beside import embedded_place, read_site
from collector.check import Checker
from collector.intake import Intake
from collector.reasons import Reason
from collector.register import Owners, Registered
from collector.ruleset import load_rules
from collector.site_folder import Entry, SiteFolder

ONE, TWO = Address("hospital", "srv-1"), Address("hospital", "srv-2")


def test_nobody_reports_an_asset_that_was_never_seen() -> None:
    assert not Owners().reporters("hospital", "srv-1")


def test_the_first_claim_stays() -> None:
    owners = Owners()
    owners.claim(ONE, ["a", "b"])
    owners.claim(TWO, ["b", "c"])
    assert owners.unregistered("hospital") == {"a": "srv-1", "b": "srv-1", "c": "srv-2"}
    assert owners.reporters("hospital", "b") == {"srv-1"}


def test_the_store_is_right_against_a_claim() -> None:
    owners = Owners()
    owners.claim(ONE, ["a", "b"])
    owners.learn("hospital", {"a": "srv-2"})
    assert owners.unregistered("hospital") == {"a": "srv-2", "b": "srv-1"}


def test_sites_know_nothing_of_each_other() -> None:
    owners = Owners()
    owners.claim(ONE, ["a"])
    assert not owners.reporters("clinic", "a")
    assert owners.unregistered("clinic") == {}


def test_an_agent_has_room_for_so_many_assets_and_no_more() -> None:
    owners = Owners(most_assets=3)
    assert owners.room(ONE) == 3
    owners.claim(ONE, ["a", "b"])
    owners.claim(ONE, ["b"])
    assert (owners.room(ONE), owners.room(TWO)) == (1, 3)
    assert owners.room(Address("clinic", "srv-1")) == 3


def test_the_store_is_right_about_the_room_too() -> None:
    owners = Owners(most_assets=3)
    owners.claim(ONE, ["a", "b"])
    owners.learn("hospital", {"a": "srv-2", **{f"c-{number}": "srv-2" for number in range(9)}})
    assert (owners.room(ONE), owners.room(TWO)) == (2, 0)


def registered(**assets: tuple[str, ...]) -> Registered:
    """A register of these assets and the reporters that it names for each."""
    entries = {name: Entry(name, "assets", {}, reporters) for name, reporters in assets.items()}
    return Registered("hospital", SiteFolder(has_register=True, entries={"assets": entries}))


def test_a_registered_asset_is_taken_from_its_reporters_alone() -> None:
    register = registered(a=("srv-1", "gateway"))
    register.learn("hospital", {"a": "srv-2"})
    assert set(register.reporters("hospital", "a")) == {"srv-1", "gateway"}


def test_a_registered_asset_without_reporters_is_its_own_and_its_first_reporter_s() -> None:
    register = registered(a=())
    assert not register.reporters("hospital", "a")
    register.claim(TWO, ["a"])
    assert set(register.reporters("hospital", "a")) == {"a", "srv-2"}


def test_an_unregistered_asset_is_its_first_reporter_s_also_beside_a_register() -> None:
    register = registered(a=("srv-1",))
    assert not register.reporters("hospital", "b")
    register.claim(TWO, ["b"])
    assert set(register.reporters("hospital", "b")) == {"srv-2"}
    assert not register.reporters("clinic", "a"), "the register is one site's"


def points_taken(register: Registered, address: Address) -> tuple[int, int]:
    """How many of two points, of the assets a and b, are stored from this agent, and how many are set aside."""
    batch = Decoded(Batch([cpu(asset="a"), cpu(NOW + 1, asset="b")], sent_at=NOW), [])
    checked = Checker(load(), register).check(address, batch, NOW)
    return len(checked.points), checked.counts.get(Reason.NOT_YOURS, 0)


def test_points_of_another_reporter_are_set_aside_as_not_yours() -> None:
    register = registered(a=("srv-1",))
    assert points_taken(register, ONE) == (2, 0)
    assert points_taken(register, TWO) == (1, 1)


def test_a_new_register_holds_from_the_next_batch_on() -> None:
    register = registered(a=("srv-1",))
    checker = Checker(load(), register)
    batch = Decoded(Batch([cpu(asset="a")], sent_at=NOW), [])
    assert len(checker.check(TWO, batch, NOW).points) == 0
    register.folder = registered(a=("srv-2",)).folder
    assert len(checker.check(TWO, batch, NOW).points) == 1


async def test_ingest_sets_aside_what_the_site_folder_gives_to_another_and_stores_it_once_it_does_not(
    tmp_path: Path,
) -> None:
    rules = load_rules().rules
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "register.yaml").write_text("assets:\n  srv-1: {reporters: [gateway]}\n")
    place, _ = read_site(embedded_place(tmp_path, "hospital"), rules)
    sender = Sender(ONE)
    with Intake(place, rules) as intake:
        await intake.ingest.run(stream([sender.batch(0, [cpu()])]))
        intake.register.folder = SiteFolder()
        await intake.ingest.run(stream([sender.batch(1, [cpu(NOW + 1)])]))
        counts = intake.ingest.counts()
        (totals,) = intake.threads.store.totals()
    assert counts.set_aside == {Reason.NOT_YOURS: 1}
    assert (totals.points, totals.set_aside) == (1, 1)
