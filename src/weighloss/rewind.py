from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from transformers import enable_full_determinism, set_seed
from transformers.trainer_pt_utils import BatchRebalanceSampler

from .errors import InvalidInputError
from .trainer import WeightedLossTrainer


class FreshState:
    """What a fresh run of a trainer has, so that a leg in the middle of `train()` can start from it.

    That is the trainable weights and the buffers (one copy on the CPU; with `model_init` none, since it makes them anew),
    the state of optimizer, schedule and gradient scaler, the random number generators and the order of the data.

    Parameters
    ----------
    trainer : WeightedLossTrainer
        Before `train()` has changed anything.
    """

    def __init__(self, trainer: WeightedLossTrainer) -> None:
        self._trainer = trainer
        self._optimization: dict[str, Any] = {}
        self._weights: dict[str, torch.Tensor] | None = None
        if trainer.model_init is None:
            self._weights = {
                name: tensor.detach().to("cpu", copy=True) for name, tensor in _tensors(trainer.model, trained=True)
            }

    def keep_optimization(self) -> None:
        """Keep the state of optimizer, schedule and gradient scaler, before their first step.

        Called again after the batch-size finder has shortened the batches, only the schedule is new.
        """
        states = {name: copy.deepcopy(part.state_dict()) for name, part in self._optimization_parts()}
        self._optimization = {**states, **self._optimization, "schedule": states["schedule"]}

    def rewind(self) -> None:
        """Give the trainer what a fresh run with `args.seed` has at the start of its first epoch."""
        weights = self._fresh_weights()
        with torch.no_grad():
            for name, tensor in _tensors(self._trainer.model):
                if name in weights:
                    tensor.copy_(weights[name])
        for name, part in self._optimization_parts():
            if name in self._optimization:
                part.load_state_dict(copy.deepcopy(self._optimization[name]))

    def rewind_randomness(self) -> None:
        """Set the random number generators as `rewind` does."""
        self._fresh_weights()

    def _fresh_weights(self) -> dict[str, torch.Tensor]:
        """The weights that a fresh run starts from, after which the random number generators are as it has them."""
        args = self._trainer.args
        enable_full_determinism(args.seed) if args.full_determinism else set_seed(args.seed)
        return dict(_tensors(self._trainer.call_model_init())) if self._weights is None else self._weights

    def rewind_data_order(self, dataloader: Any, epochs_done: int) -> None:
        """Let the training data come in the order of a fresh run with `args.seed` from this epoch on.

        Raises
        ------
        InvalidInputError
            When the order comes from a generator that cannot be rewound.
        """
        args, sampler = self._trainer.args, sampler_of(dataloader)
        if isinstance(sampler, SeedableRandomSampler):
            # It draws with initial_seed + epoch, and the epochs of a fresh run count from 0.
            sampler.initial_seed = (args.seed if args.data_seed is None else args.data_seed) - epochs_done
        elif isinstance(sampler, BatchRebalanceSampler) or getattr(sampler, "generator", None) is not None:
            raise InvalidInputError(
                f"the training data's {type(sampler).__name__} cannot be rewound to the start of a leg: sweep with "
                "train_sampling_strategy 'random', 'sequential' or 'group_by_length' and use_seedable_sampler=True."
            )

    def _optimization_parts(self) -> Iterator[tuple[str, Any]]:
        parts = (
            ("optimizer", self._trainer.optimizer),
            ("schedule", self._trainer.lr_scheduler),
            ("scaler", self._trainer.accelerator.scaler),
        )
        return ((name, part) for name, part in parts if part is not None)


def has_seeded_order(args: Any) -> bool:
    """Whether the order of an epoch's data follows from the seed alone, not from what was drawn before."""
    return args.train_sampling_strategy == "sequential" or (
        args.train_sampling_strategy == "random" and args.accelerator_config.use_seedable_sampler
    )


def sampler_of(dataloader: Any) -> Any:
    """The sampler behind a data loader that accelerate prepared, for one process or several."""
    batch_sampler = getattr(dataloader.batch_sampler, "batch_sampler", dataloader.batch_sampler)
    return batch_sampler if isinstance(batch_sampler, BatchRebalanceSampler) else batch_sampler.sampler


def _tensors(model: torch.nn.Module, trained: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    parameters = ((name, p) for name, p in model.named_parameters() if p.requires_grad or not trained)
    return chain(parameters, model.named_buffers())
