from . import report
from .training.config import WeightedLossConfig
from .errors import InvalidInputError, PushError, SweepStoppedError
from .results.evaluate_metric import PrecisionRecall
from .training.hub import push_folder
from .weighting.labels import count_labels
from .weighting.losses import calibrated_logits, weighted_binary_cross_entropy, weighted_cross_entropy
from .results.metrics import classification_metrics, precision_recall
from .sweep.ray import sweep_on_ray
from .reports.plot import plot_sweep
from .results.points import FailedLeg, SweepPoint
from .weighting.ratios import ratio_grid
from .results.ratio_sweep import RatioSweep
from .sweep.search import RatioSearch
from .sweep.callback import RatioSweepCallback
from .training.trainer import WeightedLossTrainer
from .trunk import freeze_trunk
from .weighting.class_weights import ClassWeights

__all__ = [
    "ClassWeights",
    "FailedLeg",
    "InvalidInputError",
    "PrecisionRecall",
    "PushError",
    "RatioSearch",
    "RatioSweep",
    "RatioSweepCallback",
    "SweepPoint",
    "SweepStoppedError",
    "WeightedLossConfig",
    "WeightedLossTrainer",
    "calibrated_logits",
    "classification_metrics",
    "count_labels",
    "freeze_trunk",
    "plot_sweep",
    "precision_recall",
    "push_folder",
    "ratio_grid",
    "report",
    "sweep_on_ray",
    "weighted_binary_cross_entropy",
    "weighted_cross_entropy",
]
