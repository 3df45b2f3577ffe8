from . import report
from .config import WeightedLossConfig
from .errors import InvalidInputError, PushError, SweepStoppedError
from .evaluate_metric import PrecisionRecall
from .hub import push_folder
from .labels import count_labels
from .losses import calibrated_logits, weighted_binary_cross_entropy, weighted_cross_entropy
from .metrics import classification_metrics, precision_recall
from .on_ray import sweep_on_ray
from .plot import plot_sweep
from .point import FailedLeg, SweepPoint
from .ratios import ratio_grid
from .record import RatioSweep
from .search import RatioSearch
from .sweep import RatioSweepCallback
from .trainer import WeightedLossTrainer
from .trunk import freeze_trunk
from .weights import ClassWeights

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
