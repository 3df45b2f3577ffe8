"""Points and sweeps for tests, made from confusion counts."""

from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from weighloss import OperatingPoint, RatioSweep, SweepPoint
from weighloss.results.files import write_predictions
from weighloss.results.operating_point import at_thresholds

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_sweep(name: str) -> RatioSweep:
    return RatioSweep.load(GOLDEN / name)


def make_point(ratio: float, tp: int, fp: int, fn: int, tn: int, seed: int = 42) -> SweepPoint:
    return SweepPoint(
        ratio=ratio,
        seed=seed,
        tp=tp,
        fp=fp,
        fn=fn,
        tn=tn,
        precision=tp / (tp + fp) if tp + fp else 0.0,
        recall=tp / (tp + fn),
        f1=2 * tp / (2 * tp + fp + fn),
        eval_loss=0.5,
        eval_plain_loss=0.4,
        seconds=1.5,
        global_step=10,
        predictions=f"predictions/{ratio:g}_{seed}.parquet",
    )


def make_sweep(points, seeds=(42,), natural_ratio=7.0, label_names=("ham", "spam"), **changes) -> RatioSweep:
    """A sweep of these points, over as many classes as there are names."""
    content = {
        "counts": [700, 100, 50][: len(label_names)],
        "label_names": list(label_names),
        "positive_label": 1,
        "natural_ratio": natural_ratio,
        "ratios": sorted({point.ratio for point in points}),
        "seeds": list(seeds),
        "epochs_per_ratio": 1,
        "model": "a-model",
        "dataset": "messages",
        "num_eval": 100,
        "versions": {"weighloss": "0"},
        "points": tuple(points),
    }
    if (kept := changes.pop("kept", None)) is not None:
        changes["operating_point"] = OperatingPoint.at_argmax(points[kept])
    return RatioSweep(**content | changes)


def at_threshold(leg, logits, labels, threshold, task, positive_label=1) -> OperatingPoint:
    return at_thresholds([(leg, threshold)], lambda _: (logits, labels), task, positive_label)[0]


class InMemory(RatioSweep):
    """A sweep whose predictions are not on disk but in the dictionary `found`."""

    def predictions(self, point, split="evaluation"):
        return self.found[point]


ARTICLE = [
    make_point(0.07, 0, 0, 20, 80),  # nothing predicted positive
    make_point(0.7, 8, 1, 12, 79),
    make_point(7.0, 15, 3, 5, 77),
    make_point(70.0, 19, 21, 1, 59),
    make_point(700.0, 20, 80, 0, 0),  # everything predicted positive
]


def write_leg(folder, ratio: float, scores: np.ndarray, labels: np.ndarray, seed: int = 42) -> SweepPoint:
    """Predictions on disk of a leg that gives each item this log-odds of being positive, and their point."""
    tn, fp, fn, tp = confusion_matrix(labels, scores > 0, labels=[0, 1]).ravel().tolist()
    point = make_point(ratio, tp, fp, fn, tn, seed)
    logits = np.stack([np.zeros(len(scores)), scores], axis=1).astype(np.float32)
    write_predictions(folder / point.predictions, logits, labels, {})
    return point


def write_sweep(folder, seed: int = 0, size: int = 400) -> RatioSweep:
    """An unweighted leg and one at w_r = 7, whose log-odds are those of the first plus log 7."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(size) < 0.15).astype(int)
    scores = np.round(generator.normal(labels * 2.5 - 2, 1), 2)  # some are equal
    points = [write_leg(folder, ratio, scores + np.log(ratio), labels) for ratio in (1.0, 7.0)]
    make_sweep(points, num_eval=size).save(folder)
    return RatioSweep.load(folder)
