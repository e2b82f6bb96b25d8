"""Every case of every rule on a real InfluxDB: what the rules say does not depend on the store."""

from pathlib import Path

from influxstore import config_of
from servers import Influx

from collector.cases import run_cases
from collector.ruleset import load_rules
from collector.stores.influxdb import Store

CASES = Path(__file__).parents[2] / "rules"


def test_all_cases_of_all_rules_pass_on_influxdb(influx: Influx, database: str) -> None:
    rules = load_rules().rules
    with Store(config_of(influx, database), rules.catalogue) as store:
        outcomes = list(run_cases(CASES, rules, store))
    wrong = [str(mistake) for outcome in outcomes for mistake in outcome.mistakes]
    assert not wrong, "\n" + "\n".join(wrong)
    assert {outcome.criterion for outcome in outcomes} == set(rules.book.criteria)
    assert len(outcomes) > 3 * len(rules.book.criteria)
