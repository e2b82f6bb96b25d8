"""Without a register the first reporter owns an asset."""

from agent.wire import Address
from collector.register import Owners

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
