"""Which decision rule keeps a requirement on new data? Choose on one half of the evaluation data, measure on the other.

    python benchmarks/operating_points.py SWEEP_FOLDER [SWEEP_FOLDER ...] [--halves 200]

For each requirement, the rules of `weighloss.reports.compare_with_threshold`, scikit-learn's tuned threshold, and the best
pair among few legs. Prints one table for each finished sweep: the share of the halves on which the requirement is met, the
mean of what is required, how much is missing on average, and the mean of the objective.
"""

import argparse
from collections import defaultdict

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV

from weighloss import RatioSweep
from weighloss.results.metrics import confusion
from weighloss.results.requirement import Requirement
from weighloss.results.thresholds import best_thresholds

REQUIREMENTS = ("recall>=0.9", "recall>=0.95", "precision>=0.9", "f1")
FEW = {  # the ratios of few legs, as multiples of the natural ratio; None is the unweighted leg
    "2 legs: unweighted, natural": (None, 1.0),
    "3 legs: unweighted, sqrt, natural": (None, "sqrt", 1.0),
    "3 legs: unweighted, natural, natural x 5": (None, 1.0, 5.0),
    "3 legs: natural / 5, natural, natural x 5": (0.2, 1.0, 5.0),
    "4 legs: unweighted, sqrt, natural, natural x 5": (None, "sqrt", 1.0, 5.0),
}


class Scored(ClassifierMixin, BaseEstimator):
    """A classifier whose only feature is its log-odds, so that scikit-learn can tune its threshold."""

    def fit(self, X, y):  # noqa: N803
        """Nothing to learn."""
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):  # noqa: N803
        """The feature."""
        return X[:, 0]

    def predict(self, X):  # noqa: N803
        """Argmax."""
        return (X[:, 0] > 0).astype(int)


def tuned_by_scikit_learn(
    requirement: Requirement, scores: np.ndarray, positives: np.ndarray, prefit: bool = False
) -> float:
    """The threshold of TunedThresholdClassifierCV for the same score: with five folds as by default, or on all the data."""

    def scorer(labels: np.ndarray, predictions: np.ndarray) -> float:
        return float(requirement.score(confusion(predictions, labels, [1])))

    how = {"cv": "prefit", "refit": False} if prefit else {"cv": 5}
    model = Scored().fit(scores[:, None], positives.astype(int))
    tuned = TunedThresholdClassifierCV(model, scoring=make_scorer(scorer), thresholds=200, **how)
    return float(tuned.fit(scores[:, None], positives.astype(int)).best_threshold_)


def indices(sweep: RatioSweep, wanted: tuple) -> list[int]:
    """Which legs are nearest to these multiples of the natural ratio."""
    ratios = np.array([point.ratio for point in sweep.points])
    natural = sweep.natural_ratio
    exact = [1.0 if w is None else natural**0.5 if w == "sqrt" else natural * w for w in wanted]
    return [int(np.abs(np.log(ratios / ratio)).argmin()) for ratio in exact]


def measure(sweep: RatioSweep, halves: int, with_scikit_learn: int) -> dict:
    """Counts of each rule on the other halves, by requirement and rule."""
    read = [sweep.predictions(point) for point in sweep.points]
    positive, other = sweep.positive_label, 1 - sweep.positive_label
    scores = [logits[:, positive].astype(float) - logits[:, other] for logits, _ in read]
    labels = read[0][1]
    positives = labels == positive
    natural, unweighted = indices(sweep, (1.0, None))
    found: dict = {requirement: defaultdict(list) for requirement in REQUIREMENTS}
    generator = np.random.default_rng(0)
    for half in range(halves):
        order = generator.permutation(len(labels))
        here, there = order[: len(order) // 2], order[len(order) // 2 :]
        for text in REQUIREMENTS:
            wanted = Requirement.parse(text)
            argmax = [wanted.score(confusion((s[here] > 0).astype(int), positives[here], [1])) for s in scores]
            best = [
                best_thresholds([wanted], logits[here], labels[here], positive_label=positive)[0] for logits, _ in read
            ]
            rules = {
                "natural ratio at argmax": (natural, 0.0),
                "best ratio at argmax": (int(np.argmax(argmax)), 0.0),
                "unweighted, best threshold": (unweighted, best[unweighted][1]),
            }
            if half < with_scikit_learn:
                for prefit in (True, False):
                    tuned = tuned_by_scikit_learn(wanted, scores[unweighted][here], positives[here], prefit)
                    rules[f"unweighted, scikit-learn's, {'prefit' if prefit else '5 folds'}"] = (unweighted, tuned)
            legs_of = {"best ratio and threshold": range(len(read))}
            legs_of |= {name: indices(sweep, few) for name, few in FEW.items()}
            for name, legs in legs_of.items():
                leg = max(legs, key=lambda i: best[i][0])
                rules[name] = (leg, best[leg][1])
            for name, (leg, threshold) in rules.items():
                counts = confusion((scores[leg][there] > threshold).astype(int), positives[there], [1])
                found[text][name].append(counts)
    return found


def print_table(sweep: RatioSweep, found: dict) -> None:
    """One row for each requirement and rule."""
    print(f"\n{sweep.dataset}: {sweep.points[0].tp + sweep.points[0].fn} positives among {sweep.num_items}\n")
    print("| requirement | rule | met | required | missing | objective |\n| :-- | :-- | --: | --: | --: | --: |")
    for text, rules in found.items():
        wanted = Requirement.parse(text)
        for name, counts in rules.items():
            objective = np.array([wanted.objective_of(c) for c in counts])
            cells = ["", "", ""]
            if wanted.bounds:
                ((bounded, least),) = wanted.bounds
                values = np.array([getattr(c, bounded) for c in counts])
                missing = np.maximum(0, least - values)
                cells = [f"{np.mean(missing == 0):.0%}", f"{values.mean():.3f}", f"{missing.mean():.4f}"]
            print(f"| {text} | {name} | {' | '.join(cells)} | {objective.mean():.3f} ± {objective.std():.3f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--halves", type=int, default=200)
    parser.add_argument("--with_scikit_learn", type=int, default=40, help="On how many of the halves; it is slow.")
    args = parser.parse_args()
    for folder in args.folders:
        sweep = RatioSweep.load(folder)
        print_table(sweep, measure(sweep, args.halves, args.with_scikit_learn))


if __name__ == "__main__":
    main()
