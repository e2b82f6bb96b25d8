"""Whatever a text holds, it is found again as it was, and a question about it is about it alone."""

import itertools

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from influxstore import config_of
from linkstore import CATALOGUE, START, ask, batch, point
from servers import Influx

from agent.catalogue import load
from collector.stores._influx_records import OWN
from collector.stores._influx_text import MOST_ALTERNATIVES, decode_tag, encode_tag, name_text, number_text
from collector.stores.influxdb import Store

numbers = itertools.count()

TEXTS = st.text(
    st.one_of(
        st.sampled_from("\\\\\"\"'',, ==%%\n\r\t\0{}$;-"),
        st.sampled_from("5CA0n"),
        st.characters(blacklist_categories=("Cs",)),
    ),
    min_size=1,
    max_size=12,
)


@given(TEXTS)
@example("%5C\\")
@example("\\,\\")
def test_tag_is_decoded_as_it_was(text: str) -> None:
    assert decode_tag(encode_tag(text)) == text


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
@example([("C:\\", "a\\"), ("C:\\\\", '"'), ("C:", "\\n"), ("C:\n", "")])
@example([("' OR time > 0 --", "'"), ("%", "%5C"), ("%5C", "x"), ("\\", "y")])
def test_texts_come_back_from_the_server_and_are_told_apart(
    influx: Influx, database: str, texts: list[tuple[str, str]]
) -> None:
    number = next(numbers)
    site = f"site-{number}"
    points = [
        point(place, tags={"interface": name}, busy_ratio=float(place), alias=text)
        for place, (name, text) in enumerate(texts)
    ]
    with Store(config_of(influx, database), CATALOGUE) as store:
        store.write([batch(number, *points, boot=site)._replace(site=site)])
        found = {
            row.tags["interface"]: row.fields["alias"]
            for row in store.latest("link", START)
            if row.tags["site"] == site
        }
        assert found == dict(texts)
        for place, (name, _) in enumerate(texts):
            question = ask(where=(("site", (site,)), ("interface", (name,))), buckets=1)
            buckets = store.buckets(question)
            assert {subject: one.values.tolist() for subject, one in buckets.items()} == {
                ("core-1", name): [float(place)]
            }
            # among many others the value stands in a pattern
            strangers = tuple(f"stranger.{number}" for number in range(MOST_ALTERNATIVES))
            many = ask(where=(("site", (site,)), ("interface", (*strangers, name))), buckets=1)
            assert list(store.buckets(many)) == [("core-1", name)]
        known = store.subjects("link", ("interface",), {"site": [site]}, START + 10)
        assert sorted(one.subject[0] for one in known) == sorted(name for name, _ in texts)


def test_absent_tag_is_found_among_many_values(influx: Influx, database: str) -> None:
    with Store(config_of(influx, database), CATALOGUE) as store:
        store.write([batch(0, point(0, tags={}, busy_ratio=7.0), point(0, busy_ratio=5.0))])
        others = tuple(f"eth{number}" for number in range(1, 2 * MOST_ALTERNATIVES))
        for values, found in ((("", *others), [""]), (("eth0", *others), ["eth0"]), (others, []), ((), [])):
            buckets = store.buckets(ask(where=(("interface", values),), buckets=1))
            assert [interface for _, interface in buckets] == found
        influx.ask(store.compiled(ask(where=(("interface", ()),))), database)


@pytest.mark.parametrize("name", ['x"', "x y", "", "x;", "X", "1x", "x\n"])
def test_name_that_is_no_name_reaches_no_query(name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        name_text(name)


@pytest.mark.parametrize(
    ("number", "text"), [(1e-7, "0.0000001"), (-3.5, "-3.5"), (1e21, "1000000000000000000000.0"), (40, "40.0")]
)
def test_number_stands_without_an_exponent(number: float, text: str) -> None:
    assert number_text(number) == text


def test_no_measurement_of_the_catalogue_is_called_as_one_of_our_own() -> None:
    assert not set(OWN) & load().measurements.keys()
