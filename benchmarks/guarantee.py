"""Does a guaranteed requirement hold as often as it says, and how much does one without a guarantee miss?

    python benchmarks/guarantee.py [--simulations 1000]

Scores are drawn from normal distributions, so that the recall and precision of every threshold on new data are known. Four
legs differ in how well they separate the classes. The first table chooses leg and threshold with `@90%`, the second without
it, and compares the threshold of one leg with scikit-learn's TunedThresholdClassifierCV.
"""

import argparse

import numpy as np
from scipy.stats import norm

from operating_points import tuned_by_scikit_learn
from weighloss import RatioSweep, SweepPoint
from weighloss.results.choice import choose
from weighloss.results.requirement import Requirement

CASES = [
    # requirement, number of items, share of positives, how many standard deviations the classes of each leg are apart
    ("recall>=0.9 @90%", 500, 0.15, (2.5, 2.5, 2.5, 2.5)),
    ("recall>=0.9 @90%", 300, 0.12, (2.0, 2.5, 3.0, 2.5)),
    ("recall>=0.96 @90%", 1000, 0.12, (2.0, 2.5, 3.0, 2.5)),
    ("recall>=0.9 @95%", 3000, 0.12, (2.0, 2.5, 3.0, 2.5)),
    ("precision>=0.8 @90%", 1000, 0.15, (2.5, 2.5, 2.5, 2.5)),
    ("precision>=0.9 @90%", 2000, 0.15, (2.0, 2.5, 3.0, 2.5)),
]

HOW = ("prefit", "5 folds")


class InMemory(RatioSweep):
    """A sweep of legs of which only the predictions matter, which are not on disk."""

    @classmethod
    def of(cls, predictions: list) -> "InMemory":
        """A sweep with a leg for each pair of logits and labels."""
        counts = dict.fromkeys(("tp", "fp", "fn", "tn", "global_step"), 1)
        shares = dict.fromkeys(("precision", "recall", "f1", "eval_loss", "eval_plain_loss", "seconds"), 0.5)
        legs = [SweepPoint(float(i + 1), 0, predictions=str(i), **counts, **shares) for i in range(len(predictions))]
        sweep = cls([1, 1], ["0", "1"], 1, 1.0, [leg.ratio for leg in legs], [0], 1, "", "", 1, {}, points=tuple(legs))
        object.__setattr__(sweep, "found", predictions)
        return sweep

    def predictions(self, point: SweepPoint, split: str = "evaluation") -> tuple:
        """Logits and labels of a leg."""
        return self.found[int(point.predictions)]


def on_new_data(name: str, threshold: float, share: float, apart: float) -> float:
    """Recall or precision of a threshold in the population."""
    recall, false_alarms = norm.sf(threshold - apart), norm.sf(threshold)
    return recall if name == "recall" else share * recall / (share * recall + (1 - share) * false_alarms)


def drawn(generator: np.random.Generator, size: int, share: float, apart: tuple[float, ...]) -> tuple:
    """Whether each item is positive, and its score by each leg."""
    positives = generator.random(size) < share
    return positives, [generator.normal(positives * distance, 1) for distance in apart]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    simulations = parser.parse_args().simulations
    print("| requirement | items | positive | guarantee given | fails on new data |\n| :-- | --: | --: | --: | --: |")
    for text, size, share, apart in CASES:
        wanted, generator = Requirement.parse(text), np.random.default_rng(0)
        ((name, least),) = wanted.bounds
        given = failed = 0
        for _ in range(simulations):
            positives, scores = drawn(generator, size, share, apart)
            predictions = [(np.stack([-s / 2, s / 2], axis=1), positives.astype(int)) for s in scores]
            choice = choose(InMemory.of(predictions), wanted)
            given += choice.met
            if choice.met:
                distance = apart[int(choice.point.ratio) - 1]
                failed += on_new_data(name, choice.point.threshold, share, distance) < least
        print(
            f"| {text} | {size} | {share:.0%} | {given / simulations:.1%} | {failed / simulations:.1%} |", flush=True
        )

    print("\n| requirement | items | rule | met on new data | missing on average | objective |")
    print("| :-- | --: | :-- | --: | --: | --: |")
    for text, size in (("recall>=0.9", 500), ("recall>=0.95", 500), ("precision>=0.8", 500), ("recall>=0.9", 3000)):
        wanted, generator = Requirement.parse(text), np.random.default_rng(0)
        ((name, least),) = wanted.bounds
        missing: dict[str, list[float]] = {}
        objective: dict[str, list[float]] = {}
        for _ in range(simulations // 5):
            positives, (scores,) = drawn(generator, size, 0.15, (2.5,))
            predictions = np.stack([-scores / 2, scores / 2], axis=1), positives.astype(int)
            ours = choose(InMemory.of([predictions]), wanted).point.threshold
            rules = {"weighloss": ours}
            rules |= {
                f"scikit-learn, {n}": tuned_by_scikit_learn(wanted, scores, positives, n == "prefit") for n in HOW
            }
            for rule, threshold in rules.items():
                missing.setdefault(rule, []).append(max(0.0, least - on_new_data(name, threshold, 0.15, 2.5)))
                objective.setdefault(rule, []).append(on_new_data(wanted.objective, threshold, 0.15, 2.5))
        for rule, gaps in missing.items():
            cells = f"{np.mean(np.array(gaps) == 0):.0%} | {np.mean(gaps):.4f} | {np.mean(objective[rule]):.3f}"
            print(f"| {text} | {size} | {rule} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
