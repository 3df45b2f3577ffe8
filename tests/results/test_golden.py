"""Finished sweeps that an earlier version wrote keep their numbers: table, choices and break-even."""

import json

import pytest

from results.sweeps import GOLDEN
from weighloss import RatioSweep, reports

EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED)
def test_a_finished_sweep_keeps_its_table_choices_and_break_even(name):
    sweep, expected = RatioSweep.load(GOLDEN / name), EXPECTED[name]
    assert [row[:10] for row in reports.rows(sweep)] == expected["rows"]
    assert sweep.break_even() == pytest.approx(expected["break_even"], rel=1e-12)
    interval = sweep.break_even_interval()
    assert (interval is None) == (expected["break_even_interval"] is None)
    assert list(interval or ()) == pytest.approx(expected["break_even_interval"] or [], rel=1e-12)
    for requirement, wanted in expected["choices"].items():
        if "@" in requirement or (requirement.startswith("cost") and name == "several_classes"):
            continue  # once the lower end of an interval, now a guarantee; costs of several classes had another scale
        choice = sweep.choose(requirement, threshold="argmax")
        found = {name: getattr(choice.point, name) for name in ("ratio", "seed", "precision", "recall")}
        assert found | {"met": choice.met} == wanted, requirement
    for ratio, sentence in expected["sentences"].items():
        assert reports.sentence(sweep, float(ratio)) == sentence
