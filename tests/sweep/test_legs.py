"""A leg of a sweep is the stand-alone fine-tune with its ratio and seed, bit for bit."""

import copy
import json

import numpy as np
import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from conftest import collate, make_data, make_model, parameters, quiet_args
from weighloss import InvalidInputError, RatioSweep, RatioSweepCallback, WeightedLossConfig, WeightedLossTrainer
from weighloss.training.config import GROUPED, UNGROUPED, has_values

pytestmark = pytest.mark.usefixtures("without_charts")

# Dropout, warm-up, two micro-batches a step, an incomplete last step.
TRAINING = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
    "warmup_steps": 0.2,
    "weight_decay": 0.01,
}
BEST = {
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "steps",
    "save_steps": 4,
    "load_best_model_at_end": True,
    "metric_for_best_model": "plain_loss",
    "greater_is_better": False,
}


class FinalWeights(TrainerCallback):
    """Keeps the weights at the end of every training."""

    def __init__(self):
        self.legs = []

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.legs.append(parameters(model).clone())


class Freeze(TrainerCallback):
    """Freezes the embeddings in the fourth step, and trains a bias that was frozen."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 4:
            model.bert.embeddings.requires_grad_(False)
            for group in [module.attention.self.query for module in model.bert.encoder.layer]:
                group.bias.requires_grad_(True)
            with torch.no_grad():
                model.bert.encoder.layer[0].output.dense.bias += 1


class Augmented(torch.utils.data.Dataset):
    """Items that depend on the epoch."""

    def __init__(self, data):
        self.rows, self.epoch = list(data), 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return row | {"input_ids": [*row["input_ids"][:-1], 2 + self.epoch]}


def standalone(
    path, train_data, eval_data, ratio, seed, config=None, callbacks=(), epochs=1, model=make_model, **kwargs
):
    """Logits and weights of a fresh run with one ratio and seed."""
    models = {} if "model_init" in kwargs else {"model": model()}
    if "optimizers" in kwargs:
        kwargs = kwargs | {"optimizers": kwargs["optimizers"](models["model"])}
    config = TRAINING | {"weight_ratio": ratio, "seed": seed, "num_train_epochs": epochs} | (config or {})
    trainer = WeightedLossTrainer(
        args=WeightedLossConfig(str(path), **quiet_args(**config)),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
        callbacks=copy.deepcopy(list(callbacks)),
        **models,
        **kwargs,
    )
    trainer.train()
    final = parameters(trainer.model).clone()
    evaluation = next(iter(eval_data.values())) if isinstance(eval_data, dict) else eval_data
    order = np.arange(len(evaluation))
    if has_values(trainer.args, GROUPED):
        order = np.argsort([-len(row) for row in evaluation["input_ids"]], kind="stable")
    vars(trainer.args).update(UNGROUPED)  # else predict() shuffles the rows
    trainer.args.dataloader_drop_last = trainer.args.prediction_loss_only = False
    return trainer.predict(evaluation.select(order)).predictions[np.argsort(order)], final


def assert_legs_are_standalone_runs(
    path, train_data, eval_data, config=None, callbacks=(), epochs=1, seeds=(3,), model=make_model, **kwargs
):
    ends = FinalWeights()
    models = {} if "model_init" in kwargs else {"model": model()}
    parts = kwargs | ({"optimizers": kwargs["optimizers"](models["model"])} if "optimizers" in kwargs else {})
    callback = RatioSweepCallback(ratios=[0.5, 30], seeds=seeds, epochs_per_ratio=epochs)
    trainer = WeightedLossTrainer(
        args=WeightedLossConfig(str(path / "sweep"), **quiet_args(**TRAINING | (config or {}))),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
        callbacks=[*copy.deepcopy(list(callbacks)), ends, callback],
        **models,
        **parts,
    )
    trainer.train()
    sweep = RatioSweep.load(path / "sweep")
    assert [(point.ratio, point.seed) for point in sweep.points] == [(r, s) for s in seeds for r in (0.5, 30)]
    for i, point in enumerate(sweep.points):
        logits, final = standalone(
            path / str(i), train_data, eval_data, point.ratio, point.seed, config, callbacks, epochs, model, **kwargs
        )
        assert torch.equal(ends.legs[i], final)
        assert np.array_equal(sweep.predictions(point)[0], logits)
    assert not torch.equal(ends.legs[0], ends.legs[1])
    assert len(seeds) == 1 or not torch.equal(ends.legs[0], ends.legs[-2])
    return sweep


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"train_sampling_strategy": "group_by_length"},
        {"train_sampling_strategy": "batch_rebalance"},
        {"lr_scheduler_type": "cosine", "optim": "sgd", "data_seed": 5},
        {"accelerator_config": {"use_seedable_sampler": False}},
        {"dataloader_num_workers": 1},
        {"bf16": True, "use_cpu": True},
        {"max_steps": 7},
        {"neftune_noise_alpha": 5.0},
        {"eval_strategy": "steps", "eval_steps": 3, "eval_on_start": True},
        {"dataloader_drop_last": True, "prediction_loss_only": True},
        {"full_determinism": True},
    ],
    ids=lambda config: "-".join(config) or "default",
)
def test_every_leg_is_bit_for_bit_the_standalone_run(tmp_path, train_data, eval_data, config):
    of_the_seed = {"data_seed", "accelerator_config", "full_determinism"}  # what a second seed goes through otherwise
    seeds = (3, 7) if not config or of_the_seed & config.keys() else (3,)
    assert_legs_are_standalone_runs(tmp_path, train_data, eval_data, config, seeds=seeds)


@pytest.mark.slow
def test_every_leg_of_a_compiled_model_is_the_standalone_run(tmp_path, train_data, eval_data):
    assert_legs_are_standalone_runs(tmp_path, train_data, eval_data, {"torch_compile": True})


def test_every_leg_of_several_epochs_that_loads_its_best_model_is_the_standalone_run(tmp_path, train_data, eval_data):
    assert_legs_are_standalone_runs(tmp_path, train_data, eval_data, BEST, epochs=2)


def test_a_leg_stops_early_like_the_standalone_run_and_the_next_starts_with_all_its_patience(
    tmp_path, train_data, eval_data
):
    config = BEST | {"eval_steps": 1, "save_steps": 1, "learning_rate": 5e-2}
    sweep = assert_legs_are_standalone_runs(
        tmp_path, train_data, eval_data, config, [EarlyStoppingCallback(early_stopping_patience=1)], epochs=4
    )
    steps = [point.global_step for point in sweep.points]
    assert max(steps) < 48  # stopped early
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"][0]["global_step"] == steps[0]


def test_a_callback_that_freezes_layers_in_one_leg_leaves_them_trainable_in_the_next(tmp_path, train_data, eval_data):
    def model():
        made = make_model()
        for layer in made.bert.encoder.layer:
            layer.attention.self.query.bias.requires_grad_(False)
        return made

    assert_legs_are_standalone_runs(tmp_path, train_data, eval_data, callbacks=[Freeze()], model=model)


def test_with_model_init_every_seed_has_the_head_of_a_fresh_run(tmp_path, train_data, eval_data):
    assert_legs_are_standalone_runs(
        tmp_path, train_data, eval_data, seeds=(3, 7), model_init=lambda: make_model(seed=torch.initial_seed())
    )


def test_optimizer_and_schedule_of_the_user_start_anew_in_every_leg(tmp_path, train_data, eval_data):
    def optimizers(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)

    assert_legs_are_standalone_runs(tmp_path / "both", train_data, eval_data, optimizers=optimizers)
    assert_legs_are_standalone_runs(
        tmp_path / "optimizer", train_data, eval_data, optimizers=lambda model: (optimizers(model)[0], None)
    )


def test_data_whose_items_depend_on_the_epoch_start_with_the_first_epoch_in_every_leg(tmp_path, train_data, eval_data):
    assert_legs_are_standalone_runs(tmp_path, Augmented(train_data), eval_data, epochs=2)


def test_streamed_training_data_are_swept_over_with_counts_and_a_number_of_steps(tmp_path, train_data, eval_data):
    config = {"class_counts": [3, 1], "max_steps": 5}
    assert_legs_are_standalone_runs(tmp_path, train_data.to_iterable_dataset(), eval_data, config)


def test_of_several_evaluation_sets_the_first_or_the_named_one_decides(tmp_path, train_data, eval_data):
    several = {"decides": eval_data, "other": make_data(60, seed=4)}
    config = {"eval_strategy": "epoch"}
    sweep = assert_legs_are_standalone_runs(tmp_path, train_data, several, config)
    assert sweep.num_eval == 100
    callback = RatioSweepCallback(ratios=[1], evaluate_on="other")
    trainer = WeightedLossTrainer(
        model=make_model(),
        args=WeightedLossConfig(str(tmp_path / "other"), **quiet_args()),
        train_dataset=train_data,
        eval_dataset=several,
        data_collator=collate,
        callbacks=[callback],
    )
    trainer.train()
    assert callback.sweep.num_items == 60
    callback.settings = RatioSweepCallback(evaluate_on="third").settings
    with pytest.raises(
        InvalidInputError, match="evaluate_on='third' is not among the evaluation sets 'decides', 'other'"
    ):
        trainer.train()


def test_when_the_batch_size_finder_shortens_the_batches_all_legs_are_those_of_the_shorter_ones(
    tmp_path, train_data, eval_data
):
    class OutOfMemory(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if args.per_device_train_batch_size == 16 and state.train_batch_size == 16 and state.global_step == 2:
                raise RuntimeError("CUDA out of memory.")

    config = {"auto_find_batch_size": True, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}
    callback = RatioSweepCallback(ratios=[1, 9])
    trainer = WeightedLossTrainer(
        model=make_model(),
        args=WeightedLossConfig(str(tmp_path / "sweep"), **quiet_args(**TRAINING | config)),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
        callbacks=[OutOfMemory(), callback],
    )
    trainer.train()
    found = callback.sweep.arguments["found_batch_size"]
    assert found < 16
    config = {"per_device_train_batch_size": found, "gradient_accumulation_steps": 1}
    for point in callback.sweep.points:
        logits, _ = standalone(tmp_path, train_data, eval_data, point.ratio, 42, config)
        assert np.array_equal(callback.sweep.predictions(point)[0], logits)


@pytest.mark.parametrize("tuples", [False, True])
def test_predictions_of_grouped_rows_come_in_the_order_of_the_data(tmp_path, train_data, eval_data, tuples):
    config = {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 16}
    model = make_model()
    model.config.output_hidden_states = tuples
    callback = RatioSweepCallback(ratios=[1])
    trainer = WeightedLossTrainer(
        model=model,
        args=WeightedLossConfig(str(tmp_path), **quiet_args(**config)),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
        callbacks=[callback],
    )
    trainer.train()
    logits, labels = RatioSweep.load(tmp_path).predictions(callback.sweep.points[0])
    assert labels.tolist() == eval_data["label"][:]
    model.config.output_hidden_states = False
    vars(trainer.args).update(UNGROUPED)
    assert trainer.predict(eval_data).predictions == pytest.approx(logits, abs=1e-5)
