from . import reports
from .errors import InvalidInputError, PushError, SweepStoppedError
from .reports.plot import plot_sweep
from .results.evaluate_metric import PrecisionRecall
from .results.metrics import classification_metrics, precision_recall
from .results.operating_point import OperatingPoint
from .results.points import FailedLeg, SweepPoint
from .results.ratio_sweep import RatioSweep
from .sweep.callback import RatioSweepCallback
from .sweep.ray import sweep_on_ray
from .sweep.search import RatioSearch
from .training.config import WeightedLossConfig
from .training.hub import push_folder
from .training.threshold import apply_threshold, remove_threshold
from .training.trainer import WeightedLossTrainer
from .weighting.class_weights import ClassWeights
from .weighting.labels import count_labels
from .weighting.losses import calibrated_logits, weighted_binary_cross_entropy, weighted_cross_entropy
from .weighting.ratios import ratio_grid
from .weighting.task import Task

__all__ = [
    "ClassWeights",
    "FailedLeg",
    "InvalidInputError",
    "OperatingPoint",
    "PrecisionRecall",
    "PushError",
    "RatioSearch",
    "RatioSweep",
    "RatioSweepCallback",
    "SweepPoint",
    "SweepStoppedError",
    "Task",
    "WeightedLossConfig",
    "WeightedLossTrainer",
    "apply_threshold",
    "calibrated_logits",
    "classification_metrics",
    "count_labels",
    "plot_sweep",
    "precision_recall",
    "push_folder",
    "ratio_grid",
    "remove_threshold",
    "reports",
    "sweep_on_ray",
    "weighted_binary_cross_entropy",
    "weighted_cross_entropy",
]
