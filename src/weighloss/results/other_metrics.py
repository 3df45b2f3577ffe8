from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .metrics import averaged, decisions
from .ratio_sweep import RatioSweep

_OURS = ("precision", "recall", "f1", "accuracy")
_SCIKIT_LEARN = {  # metrics of the decisions alone, by their evaluate names
    "matthews_correlation": "matthews_corrcoef",
    "balanced_accuracy": "balanced_accuracy_score",
    "cohen_kappa": "cohen_kappa_score",
}


def score(sweep: RatioSweep, metrics: Sequence[str], trust_remote_code: bool = False) -> dict[str, np.ndarray]:
    """Other metrics of every ratio from the predictions on disk, as means over the seeds like `RatioSweep.curve`.

    Parameters
    ----------
    sweep : RatioSweep
        Loaded from disk.
    metrics : sequence of str
        `precision`, `recall`, `f1`, `accuracy`, `matthews_correlation`, `balanced_accuracy`, `cohen_kappa`, the folder of
        an `evaluate` metric, or, with `trust_remote_code`, the name of a metric on the Hub.
    trust_remote_code : bool, default False
        Whether code of a metric may be downloaded from the Hub and run.

    Returns
    -------
    dict of float64 arrays of shape (n_ratios,), one for each number that the metrics return.

    Raises
    ------
    InvalidInputError
        When a metric cannot be loaded, or the predictions of a leg cannot be read.
    """
    functions = [_metric(name, sweep, trust_remote_code) for name in metrics]
    if not functions:
        return {}
    scores = {}
    for point in sweep.points:
        predictions, references = decisions(*sweep.predictions(point), sweep.task)
        found: dict[str, Any] = {}
        for function in functions:
            found |= function(predictions, references)
        scores[point] = {name: float(value) for name, value in found.items() if np.ndim(value) == 0}
    return {
        name: np.array([fmean(scores[point][name] for point in points) for points in sweep.by_ratio(name).values()])
        for name in next(iter(scores.values()), ())
    }


def _metric(name: str, sweep: RatioSweep, trust_remote_code: bool) -> Callable[[Any, Any], dict[str, Any]]:
    if name in _OURS:
        return lambda predictions, references: {
            name: averaged(predictions, references, sweep.task, sweep.positive_label)[name]
        }
    if name in _SCIKIT_LEARN:
        from sklearn import metrics  # takes longer to import than all of weighloss

        function = getattr(metrics, _SCIKIT_LEARN[name])

        def of_decisions(predictions: Any, references: Any) -> dict[str, Any]:
            with warnings.catch_warnings(action="ignore"):  # a leg that predicts one class only is marked on the chart
                return {name: function(references, predictions)}

        return of_decisions
    script = Path(name) if name.endswith(".py") else Path(name, f"{Path(name).name}.py")
    if not trust_remote_code and not script.is_file():  # for a folder without its script, evaluate asks the Hub
        raise InvalidInputError(
            f"the metric {name!r} is not built in: write {', '.join([*_OURS, *_SCIKIT_LEARN])} or the folder of a metric, "
            "or allow that its code is downloaded from the Hub and run, with trust_remote_code=True (--trust_remote_code)."
        )
    import evaluate

    try:
        loaded = evaluate.load(str(script) if script.is_file() else name)
    except Exception as error:  # whatever the Hub, the file system or the code of the metric raise
        raise InvalidInputError(
            f"the metric {name!r} cannot be loaded ({error}): check its name, and whether the Hub can be reached."
        ) from error
    return lambda predictions, references: loaded.compute(predictions=predictions, references=references)
