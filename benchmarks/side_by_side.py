"""Would a preview's legs be faster side by side, sharing every batch, than one after the other?

Trains the last layer and the head of MiniLM at 13 ratios from the same cached activations, without a Trainer:
one leg after the other, as a preview does; leg by leg on every batch, which is read once; and all legs in one
computation, their weights stacked (torch.func.vmap).
"""

import tempfile
from pathlib import Path
from statistics import median

import torch
from datasets import disable_progress_bars
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.data import DataLoader
from transformers import AutoTokenizer, DataCollatorWithPadding
from transformers.utils import logging

from speed import in_turns, new_model, timed
from weighloss.activations import ActivationCollator, cache_activations
from weighloss.cli.demo_data import builtin_data, builtin_model
from weighloss.cli.data import DataArguments, tokenize
from weighloss.probe import find_at_first_position_only
from weighloss.trunk import Trunk

NUM_LEGS = 13
WEIGHTS = [torch.tensor([1.0, ratio]) for ratio in torch.logspace(-1, 3, NUM_LEGS).tolist()]


def optimizer(parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=2e-4, fused=True)


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(builtin_model())
    data = tokenize(builtin_data(num_train=320, num_validation=16), tokenizer, DataArguments(max_seq_length=48))
    data = data["train"].remove_columns(set(data["train"].column_names) - {"input_ids", "attention_mask", "label"})

    whole, collate = new_model(), DataCollatorWithPadding(tokenizer)
    trunk = Trunk(whole)
    inputs = {name: value for name, value in collate([data[i] for i in range(3)]).items() if name != "labels"}
    at_first_position_only = find_at_first_position_only(trunk, whole, inputs)
    collator = ActivationCollator(trunk)
    file = Path(tempfile.mkdtemp()) / "activations.arrow"
    rows = cache_activations(data, collate, collator, file, progress=False)

    def batches() -> DataLoader:
        return DataLoader(rows, batch_size=16, collate_fn=collator)

    def legs() -> list[torch.nn.Module]:
        models = [new_model() for _ in range(NUM_LEGS)]
        for model in models:
            Trunk(model).cut(at_first_position_only)
        return models

    def update(model, weights, batch, step) -> None:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        torch.nn.functional.cross_entropy(model(**inputs).logits, batch["labels"], weights).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        step.step()
        step.zero_grad()

    models = legs()
    steps = [optimizer(model.parameters()) for model in models]
    parameters, buffers = stack_module_state(models)
    of_all = optimizer(parameters.values())

    def one_after_the_other() -> None:
        for model, weights, step in zip(models, WEIGHTS, steps, strict=True):
            for batch in batches():
                update(model, weights, batch, step)

    def leg_by_leg() -> None:
        for batch in batches():
            for model, weights, step in zip(models, WEIGHTS, steps, strict=True):
                update(model, weights, batch, step)

    def stacked() -> None:
        for batch in batches():
            inputs = {name: value for name, value in batch.items() if name != "labels"}

            def loss(parameters, buffers, weights, inputs=inputs, labels=batch["labels"]):
                logits = functional_call(models[0], (parameters, buffers), kwargs=inputs).logits
                return torch.nn.functional.cross_entropy(logits, labels, weights)

            vmap(loss, randomness="different")(parameters, buffers, torch.stack(WEIGHTS)).sum().backward()
            of_all.step()
            of_all.zero_grad()

    one, shared, together = in_turns(timed(one_after_the_other), timed(leg_by_leg), timed(stacked))
    print(f"{torch.get_num_threads()} threads; {NUM_LEGS} legs of 20 steps one after the other: {median(one):.1f} s")
    by_batch, stacked_ratio = median(shared / one), median(together / one)
    print(f"leg by leg on every batch: {by_batch:.2f} of it; stacked in one computation: {stacked_ratio:.2f}")


if __name__ == "__main__":
    main()
