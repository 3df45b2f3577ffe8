import math
from types import SimpleNamespace

import numpy as np
import pytest
from test_where_it_works import Mode, weighted_trainer

from weighloss import InvalidInputError, RatioSearch, RatioSweep, RatioSweepCallback
from weighloss.results.requirement import Requirement

SHARE = 1.3  # of the ratio, within which it is found


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class Curves:
    """Recall that rises with log w_r and precision that falls, from different floors to different ceilings."""

    def __init__(self, generator: np.random.Generator, noise: float) -> None:
        self.generator, self.noise = generator, noise
        self.natural_ratio = math.exp(generator.uniform(0.5, 4))
        self.rise, self.fall = generator.uniform(0.25, 1.5, 2)
        self.recall_at, self.precision_at = generator.uniform(-1, 2.5, 2)
        self.floor, self.ceiling = generator.uniform(0, 0.3), generator.uniform(0.97, 1)

    def true(self, log_ratio: float, noise: float = 0.0) -> tuple[float, float]:
        x = log_ratio - math.log(self.natural_ratio)
        recall = logistic(self.recall_at + self.rise * x + noise * self.generator.normal())
        precision = logistic(self.precision_at - self.fall * x + noise * self.generator.normal())
        return self.ceiling * precision, self.floor + (self.ceiling - self.floor) * recall

    def point(self, ratio: float) -> SimpleNamespace:
        precision, recall = self.true(math.log(ratio), self.noise)
        f1 = 2 * precision * recall / (precision + recall)
        return SimpleNamespace(ratio=ratio, precision=precision, recall=recall, f1=f1, tp=1, fp=1, fn=1, tn=1)


def run(requirement: str, curves: Curves) -> list[SimpleNamespace]:
    points: list[SimpleNamespace] = []
    while (ratio := RatioSearch().next_ratio(requirement, points, curves.natural_ratio)) is not None:
        points.append(curves.point(ratio))
    return points


@pytest.mark.parametrize("kind", ["recall", "precision", "break-even"])
def test_within_six_legs_the_ratio_is_found_to_a_factor_in_95_of_100_cases(kind):
    found = []
    for case in range(500):
        generator = np.random.default_rng(case)
        curves = Curves(generator, noise=0.03)
        least = round(generator.uniform(0.55, 0.95), 3)
        requirement = kind if kind == "break-even" else f"{kind}>={least}"
        points = run(requirement, curves)
        assert len(points) <= 6
        best = max(points, key=Requirement.parse(requirement).score)
        around = [math.log(best.ratio) + step for step in np.linspace(-1, 1, 41) * math.log(SHARE)]
        values = [curves.true(at) for at in around]  # what the truth is within the factor
        if kind == "break-even":
            gaps = [recall - precision for precision, recall in values]
            found.append(min(gaps) <= 0.01 and max(gaps) >= -0.01)
        else:
            own = [recall if kind == "recall" else precision for precision, recall in values]
            found.append(min(own) <= least + 0.01 and max(own) >= least)
    assert np.mean(found) >= 0.95


@pytest.mark.parametrize("requirement", ["f1", "cost fp=1 fn=5"])
def test_a_maximum_is_closed_in_on(requirement):
    lost = []
    for case in range(200):
        curves = Curves(np.random.default_rng(case), noise=0.0)
        score = Requirement.parse(requirement).score

        def point(ratio, curves=curves):
            found = curves.point(ratio)
            tp = 100 * found.recall
            counts = {"tp": tp, "fn": 100 - tp, "fp": tp / found.precision - tp, "tn": 1000}
            return SimpleNamespace(**vars(found) | counts)

        points = []
        while (ratio := RatioSearch(8).next_ratio(requirement, points, curves.natural_ratio)) is not None:
            points.append(point(ratio))
        assert len(points) <= 8
        reach = curves.natural_ratio * np.geomspace(1 / 64, 64, 400)  # wherever the search went
        lost.append(max(score(point(ratio)) for ratio in reach) - max(map(score, points)))
    assert np.quantile(lost, 0.9) < 0.02


def test_a_leg_that_calls_everything_positive_is_not_what_was_searched_for():
    def point(ratio):
        recall = 0.9 if ratio < 50 else 1.0
        rest = int(ratio < 50)
        return SimpleNamespace(ratio=ratio, precision=0.1, recall=recall, f1=0.2, tp=1, fp=9, fn=rest, tn=rest)

    points = []
    while (ratio := RatioSearch(8).next_ratio("recall>=0.99", points, 7.0)) is not None:
        points.append(point(ratio))
    everything = [p.ratio for p in points if p.recall == 1]
    assert max(everything) > min(everything)  # it has gone on from the first of them, back towards the natural ratio


def test_what_no_ratio_has_is_given_up_at_the_edge():
    def point(ratio):
        return SimpleNamespace(ratio=ratio, precision=0.9, recall=0.5, f1=0.6, tp=1, fp=1, fn=1, tn=1)

    points = []
    while (ratio := RatioSearch(50).next_ratio("recall>=0.9", points, 7.0)) is not None:
        points.append(point(ratio))
    assert len(points) < 10
    assert max(p.ratio for p in points) == pytest.approx(7e4)


@pytest.mark.parametrize("requirement", ["precision>=0.8", "break-even", "f1", "recall>=0.5"])
def test_where_nothing_is_found_the_search_goes_to_higher_ratios(requirement):
    def point(ratio):
        precision, recall = (
            (1 - logistic(math.log(ratio / 60)), logistic(math.log(ratio / 30))) if ratio > 10 else (0, 0)
        )
        f1 = 2 * precision * recall / (precision + recall) if recall else 0
        return SimpleNamespace(
            ratio=ratio, precision=precision, recall=recall, f1=f1, tp=int(recall > 0), fp=1, fn=1, tn=1
        )

    points = []
    while (ratio := RatioSearch().next_ratio(requirement, points, 7.0)) is not None:
        points.append(point(ratio))
    assert max(points, key=Requirement.parse(requirement).score).recall > 0


def test_a_search_that_is_met_at_once_ends_at_the_natural_ratio():
    point = SimpleNamespace(ratio=7.0, precision=0.9, recall=0.955, f1=0.9, tp=1, fp=1, fn=1, tn=1)
    assert RatioSearch().next_ratio("recall>=0.95", [], 7.0) == 7.0
    assert RatioSearch().next_ratio("recall>=0.95", [point], 7.0) is None


def test_a_search_is_a_sweep_whose_legs_are_the_standalone_runs(tmp_path):
    trainer = weighted_trainer(Mode(), tmp_path / "out", learning_rate=0.5)
    callback = RatioSweepCallback(ratios=RatioSearch(5), choose="recall>=0.6")
    trainer.add_callback(callback)
    trainer.train()
    sweep = RatioSweep.load(tmp_path / "out")
    assert sweep.ratios == sorted(point.ratio for point in sweep.points)
    assert 1 < len(sweep.points) <= 5
    assert (tmp_path / "out" / "precision_recall.png").exists()
    assert sweep.kept_point == sweep.choose("recall>=0.6").point
    for point in sweep.points:
        alone = weighted_trainer(Mode(), tmp_path, learning_rate=0.5, weight_ratio=point.ratio)
        alone.train()
        assert alone.evaluate()["eval_plain_loss"] == point.eval_plain_loss
    taken = sorted(sweep.points, key=lambda point: point.predictions)  # numbered in the order of the legs
    expected = [RatioSearch(5).next_ratio("recall>=0.6", taken[:i], sweep.natural_ratio) for i in range(5)]
    assert [point.ratio for point in taken] == expected[: len(taken)]
    assert taken[0].ratio == sweep.natural_ratio


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"max_legs": 1}, "max_legs must be an integer of at least 2, got 1"),
        ({"max_legs": "recall>=0.9"}, "max_legs must be an integer of at least 2, got 'recall>=0.9'"),
        ({"tolerance": 0}, "tolerance must be between 0 and 1, got 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(parameters, sentence):
    with pytest.raises(InvalidInputError, match=sentence):
        RatioSearch(**parameters)
