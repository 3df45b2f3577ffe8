import math

import numpy as np
import pytest
from test_where_it_works import Mode, weighted_trainer

from weighloss import InvalidInputError, RatioSearch, RatioSweep, RatioSweepCallback


def run(search: RatioSearch, score, natural_ratio: float = 7.0) -> list[float]:
    """The ratios of a search where a leg with log(ratio / natural) = x has the score score(x)."""
    ratios, scores = [], []
    while (ratio := search.next_ratio(ratios, scores, natural_ratio)) is not None:
        ratios.append(ratio)
        scores.append(score(math.log(ratio / natural_ratio)))
    return ratios


@pytest.mark.parametrize("peak", [-3.0, -0.4, 0.0, 1.2, 4.0])
@pytest.mark.parametrize("width", [1.0, 3.0])
def test_a_search_loses_little_against_the_best_ratio(peak, width):
    def score(x):
        return 1.9 - 0.1 * ((x - peak) / width) ** 2

    ratios = run(RatioSearch(8), score)
    assert len(ratios) <= 8
    assert max(score(math.log(ratio / 7)) for ratio in ratios) > 1.9 - 0.02


def test_where_the_ratio_makes_no_difference_three_legs_are_enough():
    assert run(RatioSearch(), lambda x: 1.9 - 0.001 * abs(x)) == pytest.approx([7, 35, 1.4])


def test_a_bound_that_only_high_ratios_meet_is_narrowed_down():
    def score(x):  # recall at argmax: missing below x = 2, and above the precision falls
        return 1.9 - 0.1 * x if x >= 2 else (x - 2) / 10

    ratios = run(RatioSearch(8), score)
    best = min(ratio for ratio in ratios if math.log(ratio / 7) >= 2)
    assert math.log(best / 7) < 2.5


def test_what_no_ratio_has_is_given_up_at_the_edge():
    ratios = run(RatioSearch(50), lambda x: x / 100 - 1)
    assert max(ratios) == pytest.approx(7e4)
    assert len(ratios) < 12


def test_where_nothing_is_found_the_search_goes_to_higher_ratios():
    assert run(RatioSearch(4), lambda x: float(x > 4)) == pytest.approx([7, 35, 175, 875])


@pytest.mark.parametrize(
    ("wrong", "found"),
    [({"max_legs": 1}, "max_legs"), ({"tolerance": 0.0}, "tolerance"), ({"tolerance": "a"}, "tolerance")],
)
def test_wrong_settings_are_refused(wrong, found):
    with pytest.raises(InvalidInputError, match=found):
        RatioSearch(**wrong)


@pytest.mark.parametrize("threshold", ["any", "argmax"])
def test_a_search_is_a_sweep_whose_legs_are_the_standalone_runs(tmp_path, threshold):
    trainer = weighted_trainer(Mode(), tmp_path / "out", learning_rate=0.5)
    callback = RatioSweepCallback(ratios=RatioSearch(4), choose="recall>=0.6", threshold=threshold)
    trainer.add_callback(callback)
    trainer.train()
    sweep = RatioSweep.load(tmp_path / "out")
    assert sweep.ratios == sorted(point.ratio for point in sweep.points)
    assert 1 < len(sweep.points) <= 4
    assert (tmp_path / "out" / "precision_recall.png").exists()
    assert sweep.operating_point == sweep.choose("recall>=0.6", threshold).point
    for point in sweep.points:
        alone = weighted_trainer(Mode(), tmp_path, learning_rate=0.5, weight_ratio=point.ratio)
        alone.train()
        predictions = alone.predict(alone.eval_dataset).predictions
        assert np.array_equal(predictions, sweep.predictions(point)[0])
