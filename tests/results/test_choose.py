import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.sweeps import make_point, make_sweep
from weighloss import InvalidInputError, RatioSweep
from weighloss.results.files import write_predictions
from weighloss.results.requirement import Requirement

counts = st.tuples(*[st.integers(0, 50)] * 4).filter(lambda counts: counts[0] + counts[2] > 0)
REQUIREMENTS = ["f1", "f0.5", "f2", "recall>=0.8", "precision>=0.7", "cost fp=1 fn=20", "cost fp=0 fn=1", "break-even"]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("F1", "f1"),
        ("f-0.5", "f0.5"),
        ("recall >= 0.95", "recall>=0.95"),
        ("Recall>=95%", "recall>=0.95"),
        ("precision>.9", "precision>=0.9"),
        ("recall>=0.95 @90%", "recall>=0.95 @90%"),
        ("cost fp=1, fn=20", "cost fp=1 fn=20"),
        ("cost fp=0.00001 fn=12345678", "cost fp=1e-05 fn=12345678"),
        ("recall>=0.95123456", "recall>=0.95123456"),
        ("breakeven", "break-even"),
    ],
)
def test_requirements_are_understood_as_they_are_written(written, text):
    assert Requirement.parse(written).text == text
    assert Requirement.parse(text) == Requirement.parse(written)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("recall>=1.5", "must have a number above 0 and up to 1, such as recall>=0.95"),
        ("recall>=0", "must have a number above 0 and up to 1, such as recall>=0.95"),
        ("recal>=0.9", "write 'recall>=0.9'"),
        ("prcision 0.8", "write 'precision>=0.8'"),
        ("f0", "write 'f1'"),
        ("cost 3", "write 'cost fp=1 fn=20'"),
        ("cost fp=0 fn=0", "write 'cost fp=1 fn=20'"),
        ("recall>=0.9 @100%", "between 0% and 100%"),
        ("recall>=0.9 @0.9", "such as @90%"),
        ("recall>=0.9 and precision>=0.5", "write one, such as"),
        ("f1 @90%", "write 'f1'"),
        ("", "or one of f1"),
    ],
)
def test_what_is_no_requirement_is_refused_with_the_nearest_that_is(written, sentence):
    with pytest.raises(InvalidInputError, match=r"^[^\n]*$") as caught:
        Requirement.parse(written)
    assert sentence in str(caught.value)


@given(cases=st.lists(counts, min_size=1, max_size=12), requirement=st.sampled_from(REQUIREMENTS))
def test_no_other_point_is_better_than_the_one_chosen(cases, requirement):
    sweep = make_sweep([make_point(2.0**i, *case) for i, case in enumerate(cases)])
    choice = sweep.choose(requirement)
    chosen = choice.point
    if requirement in ("recall>=0.8", "precision>=0.7"):
        own, other, least = ("recall", "precision", 0.8) if "recall" in requirement else ("precision", "recall", 0.7)
        telling = [point for point in sweep.points if not (point.tn == point.fn == 0 < point.fp)]
        meeting = [point for point in telling if getattr(point, own) >= least]
        assert choice.met == bool(meeting)
        if meeting:
            assert getattr(chosen, own) >= least
            assert getattr(chosen, other) == max(getattr(point, other) for point in meeting)
        elif telling:
            assert getattr(chosen, own) == max(getattr(point, own) for point in telling)
        return

    def value(point):  # independent of the code: from the counts
        if requirement.startswith("f"):
            square = float(requirement[1:]) ** 2
            return (1 + square) * point.tp / max((1 + square) * point.tp + square * point.fn + point.fp, 1)
        if requirement.startswith("cost"):
            fp, fn = (1, 20) if "fp=1" in requirement else (0, 1)
            return -(fp * point.fp + fn * point.fn) / (point.tp + point.fp + point.fn + point.tn)
        return -abs(point.precision - point.recall) if point.tp else -np.inf

    assert choice.met
    best = max(map(value, sweep.points))
    assert value(chosen) == pytest.approx(best, abs=1e-12) or (value(chosen) == best == -np.inf)


def test_the_choice_says_what_was_chosen_or_what_comes_nearest():
    sweep = make_sweep([make_point(1, 8, 1, 12, 79), make_point(7, 15, 3, 5, 77), make_point(70, 19, 21, 1, 59)])
    assert str(sweep.choose("recall>=0.7")) == "recall>=0.7 chooses w_r = 7: precision 0.833, recall 0.750."
    nearest = "No leg meets recall>=0.99; the nearest is w_r = 70: precision 0.475, recall 0.950."
    assert str(sweep.choose("recall>=0.99")) == nearest
    assert str(sweep.choose("cost fp=1 fn=20")).endswith("recall 0.950, cost 0.41 per item.")
    everything = make_sweep([make_point(1, 8, 1, 12, 79), make_point(70, 20, 80, 0, 0)])
    assert str(everything.choose("recall>=0.7")) == (
        "No leg meets recall>=0.7 except by calling everything positive (w_r = 70), which does not count; the nearest is "
        "w_r = 1: precision 0.889, recall 0.400."
    )
    cheapest = "w_r = 70: precision 0.200, recall 1.000, cost 0.8 per item; it calls everything positive."
    assert str(everything.choose("cost fp=1 fn=20")) == f"cost fp=1 fn=20 chooses {cheapest}"
    with pytest.raises(InvalidInputError, match="no finished leg"):
        make_sweep([]).choose("f1")


def test_a_careful_requirement_needs_the_lower_end_of_the_interval(tmp_path):
    generator = np.random.default_rng(0)
    labels = (generator.random(300) < 0.2).astype(int)
    points = []
    for ratio, found in ((1, 0.9), (10, 0.97)):
        predicted = np.where(labels == 1, generator.random(300) < found, generator.random(300) < 0.02 * ratio)
        tp, fp = int((predicted & (labels == 1)).sum()), int((predicted & (labels == 0)).sum())
        point = make_point(ratio, tp, fp, int(labels.sum()) - tp, int((labels == 0).sum()) - fp)
        write_predictions(tmp_path / point.predictions, np.stack([1.0 - predicted, predicted], axis=1), labels, {})
        points.append(point)
    make_sweep(points).save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    low, high = (sweep.intervals(0.9).recall[i, 0] for i in (0, 1))
    least = f"recall>={(low + points[0].recall) / 2:.3f}"
    assert low < points[0].recall
    assert high > low
    assert sweep.choose(least).point.ratio == 1
    careful = sweep.choose(f"{least} @90%")
    assert careful.point.ratio == 10
    assert str(careful).endswith(f", lower end of the interval of recall {high:.3f}.")
    with pytest.raises(InvalidInputError, match="leave the @ out"):
        make_sweep(points).choose(f"{least} @90%")
