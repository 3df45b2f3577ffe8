from __future__ import annotations

from typing import Any

import datasets
import evaluate
from sklearn.metrics import matthews_corrcoef

from .metrics import precision_recall

_DESCRIPTION = """\
Precision, recall, F1, accuracy, Matthews correlation and the confusion counts of one classification, without the Hub.
Where a denominator is zero (no predicted or no actual positive) the value is 0.
"""

_KWARGS_DESCRIPTION = """\
Args:
    predictions (`list` of `int`): Predicted class ids.
    references (`list` of `int`): True class ids.
    positive_label (`int`, defaults to 1): The class that `average="binary"` looks at.
    average (`str`, defaults to "binary"): "binary" for the positive label alone, or "macro" or "micro" over all.

Returns:
    precision, recall, f1, accuracy, matthews_correlation (`float`), and tp, fp, fn, tn (`int`): of the positive label, or
    the sums of each class against the rest.

Examples:

    >>> metric = PrecisionRecall()
    >>> results = metric.compute(predictions=[1, 1, 0, 0], references=[1, 0, 1, 0])
    >>> results["precision"], results["recall"], results["tp"]
    (0.5, 0.5, 1)
"""

_CITATION = "Pedregosa et al. (2011), Scikit-learn: Machine Learning in Python, JMLR 12, 2825-2830"


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class PrecisionRecall(evaluate.Metric):  # noqa: D101 — the decorator writes its docstring
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: Any, references: Any, positive_label: int = 1, average: str = "binary"
    ) -> dict[str, float | int]:
        return precision_recall(predictions, references, positive_label, average) | {
            "matthews_correlation": float(matthews_corrcoef(references, predictions))
        }
