from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import TrainOutput


class TrainingRunner(TrainerCallback):
    """Base class of a callback that runs the whole training itself when `WeightedLossTrainer.train` is called."""

    sweep: Any = None  # the results so far, for the model card

    def run(self, trainer: Any, resume_from_checkpoint: Any, trial: Any) -> TrainOutput:
        """Train; called with the arguments of `Trainer.train`."""
        raise NotImplementedError
