"""A guarantee holds at its level on data whose truth is known."""

import numpy as np
import pytest
from scipy.stats import beta, norm

from results.sweeps import InMemory, make_point, make_sweep
from weighloss.results.choice import choose
from weighloss.results.guarantee import certified_threshold, items_needed, starting_threshold
from weighloss.results.requirement import Requirement

STRENGTH = 2.5  # the scores of the positives are normal around this, those of the negatives around 0


def drawn(generator, size: int, share: float, strength: float = STRENGTH) -> tuple[np.ndarray, np.ndarray]:
    positives = generator.random(size) < share
    return positives, generator.normal(positives * strength, 1)


def truth(name: str, threshold: float, share: float, strength: float = STRENGTH) -> float:
    recall = norm.sf(threshold - strength)
    return recall if name == "recall" else share * recall / (share * recall + (1 - share) * norm.sf(threshold))


@pytest.mark.parametrize(
    ("requirement", "size", "share"),
    [
        ("recall>=0.9 @90%", 400, 0.12),
        ("recall>=0.96 @90%", 500, 0.12),
        ("recall>=0.9 @95%", 3000, 0.3),
        ("precision>=0.8 @90%", 1000, 0.12),
        ("precision>=0.8 @80%", 400, 0.3),
    ],
)
def test_a_certified_threshold_fails_on_new_data_as_rarely_as_it_says(requirement, size, share):
    wanted, generator = Requirement.parse(requirement), np.random.default_rng(0)
    ((name, least),) = wanted.bounds
    certified = failed = 0
    for _ in range(1000):
        start = starting_threshold(wanted, *drawn(generator, size // 2, share))
        threshold = certified_threshold(wanted, *drawn(generator, size, share), start)
        certified += threshold is not None
        failed += threshold is not None and truth(name, threshold, share) < least
    assert certified > 400
    assert failed / 1000 <= 1 - wanted.confidence + 0.02
    if name == "recall":  # and it asks for no more than it must
        assert failed / 1000 >= (1 - wanted.confidence) / 3


def test_the_test_is_that_of_clopper_and_pearson():
    wanted = Requirement.parse("recall>=0.9 @95%")
    positives, scores = drawn(np.random.default_rng(1), 2000, 0.2)
    threshold = certified_threshold(wanted, positives, scores)

    def lower_end(threshold: float) -> float:
        hits, trials = np.sum(positives & (scores > threshold)), positives.sum()
        return beta.ppf(0.05, hits, trials - hits + 1)

    higher = np.sort(scores[positives & (scores > threshold)])[:2]
    assert lower_end(threshold) >= 0.9 > lower_end(higher[1])


@pytest.mark.parametrize(
    ("requirement", "needed"), [("recall>=0.9 @90%", 22), ("recall>=0.96 @90%", 57), ("precision>=0.99 @90%", 230)]
)
def test_too_few_examples_certify_nothing(requirement, needed):
    wanted = Requirement.parse(requirement)
    assert items_needed(wanted) == needed
    for size, possible in ((needed - 1, False), (needed, True)):
        positives, scores = np.repeat([True, False], size), np.repeat([3.0, -3.0], size) + np.linspace(0, 1, 2 * size)
        assert (certified_threshold(wanted, positives, scores, 3.0) is not None) == possible


def test_choosing_the_leg_too_does_not_break_the_guarantee():
    wanted, generator = Requirement.parse("recall>=0.9 @90%"), np.random.default_rng(0)
    legs = [make_point(ratio, 8, 2, 12, 78) for ratio in (1.0, 2.0, 4.0, 8.0)]
    sweep = InMemory(**vars(make_sweep(legs)))
    certified = failed = 0
    for _ in range(200):
        positives = generator.random(500) < 0.15
        scores = {leg: generator.normal(positives * STRENGTH, 1) for leg in legs}  # none is better than another
        found = {leg: (np.stack([-s / 2, s / 2], axis=1), positives.astype(int)) for leg, s in scores.items()}
        object.__setattr__(sweep, "found", found)
        choice = choose(sweep, wanted)
        certified += choice.met
        failed += choice.met and truth("recall", choice.point.threshold, 0.15) < 0.9
    assert certified > 150
    assert failed <= 0.1 * 200 + 2 * np.sqrt(200 * 0.1 * 0.9)
