from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from .record import RatioSweep

if TYPE_CHECKING:
    from .trainer import WeightedLossTrainer


class TrainingDriver(TrainerCallback):
    """A callback that drives a `WeightedLossTrainer` instead of watching it: it is handed the trainer itself.

    Attributes
    ----------
    sweep : RatioSweep, optional
        The sweep that it drove, for the model card.
    loads_weights : bool, default True
        Whether the Trainer is to load weights from where it resumes.
    """

    sweep: RatioSweep | None = None
    loads_weights = True

    def driving(
        self, trainer: WeightedLossTrainer, resume_from_checkpoint: Any, trial: Any = None
    ) -> AbstractContextManager[Any]:
        """The context in which `trainer.train()` runs: entered before the Trainer reads anything, left whatever happens.

        It is given what `train()` was, and gives what the Trainer is to resume from.
        """
        raise NotImplementedError

    def schedule_steps(self, num_training_steps: int) -> int:
        """Length of the learning-rate schedule in optimizer steps, out of those of the whole training."""
        return num_training_steps

    def optimization_created(self) -> None:
        """Called when optimizer and schedule are made, before a checkpoint is loaded into them."""
