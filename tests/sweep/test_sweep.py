import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from datasets import load_dataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments

from conftest import ROOT, collate, make_data, make_model, parameters, quiet_args
from weighloss import (
    InvalidInputError,
    RatioSearch,
    RatioSweep,
    RatioSweepCallback,
    WeightedLossConfig,
    WeightedLossTrainer,
    precision_recall,
)
from weighloss.rewind import FreshState
from weighloss.results.files import has_no_room

# Dropout, warm-up, two micro-batches a step, an incomplete last step.
TRAINING = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
    "warmup_steps": 0.2,
    "weight_decay": 0.01,
}


class FinalWeights(TrainerCallback):
    """Keeps the weights at the end of every epoch."""

    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.epochs.append(parameters(model).clone())


def make_sweep(
    path, train_data, eval_data, callback, config=None, callbacks=(), config_class=WeightedLossConfig, **kwargs
):
    models = {} if "model_init" in kwargs else {"model": make_model()}
    return WeightedLossTrainer(
        args=config_class(str(path), **quiet_args(**TRAINING | (config or {}))),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
        callbacks=[callback, *callbacks],
        **models,
        **kwargs,
    )


def standalone(path, train_data, eval_data, ratio, seed, config=None, **kwargs):
    """Logits and weights of a fresh run with one ratio and seed."""
    models = {} if "model_init" in kwargs else {"model": make_model()}
    config = {"weight_ratio": ratio, "seed": seed, "num_train_epochs": 1} | TRAINING | (config or {})
    trainer = WeightedLossTrainer(
        args=WeightedLossConfig(str(path), **quiet_args(**config)),
        train_dataset=train_data,
        data_collator=collate,
        **models,
        **kwargs,
    )
    trainer.train()
    logits = trainer.predict(eval_data).predictions
    if trainer.args.train_sampling_strategy == "group_by_length":  # shuffles the rows of predict() as well
        logits = logits[np.argsort(list(trainer._get_eval_sampler(eval_data)))]
    return logits, parameters(trainer.model)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"train_sampling_strategy": "group_by_length"},
        {"lr_scheduler_type": "cosine", "optim": "sgd", "data_seed": 5},
        {"accelerator_config": {"use_seedable_sampler": False}},
        {"dataloader_num_workers": 1},
    ],
    ids=["default", "group_by_length", "cosine_sgd_data_seed", "random_sampler", "worker"],
)
def test_every_leg_is_bit_for_bit_the_standalone_run(tmp_path, train_data, eval_data, config):
    ends = FinalWeights()
    callback = RatioSweepCallback(ratios=[0.5, 4, 30], seeds=[3, 7])
    trainer = make_sweep(tmp_path / "sweep", train_data, eval_data, callback, config, [ends])
    trainer.train()
    sweep = RatioSweep.load(tmp_path / "sweep")
    assert [(point.ratio, point.seed) for point in sweep.points] == [(r, s) for s in (3, 7) for r in (0.5, 4, 30)]
    for point, weights in zip(sweep.points, ends.epochs, strict=True):
        logits, final = standalone(tmp_path, train_data, eval_data, point.ratio, point.seed, config)
        assert torch.equal(weights, final)
        swept, labels = sweep.predictions(point)
        assert np.array_equal(swept, logits)
        assert labels.tolist() == eval_data["label"][:]
        measured = precision_recall(logits.argmax(-1), labels)
        assert {name: getattr(point, name) for name in ("tp", "fp", "fn", "tn", "precision", "recall", "f1")} == {
            name: value for name, value in measured.items() if name != "accuracy"
        }
    assert not torch.equal(ends.epochs[0], ends.epochs[3])


def test_with_model_init_every_seed_has_the_head_of_a_fresh_run(tmp_path, train_data, eval_data):
    def model_init():
        return make_model(seed=torch.initial_seed())

    callback = RatioSweepCallback(ratios=[1, 9], seeds=[1, 2])
    make_sweep(tmp_path / "sweep", train_data, eval_data, callback, model_init=model_init).train()
    for point in callback.sweep.points:
        logits, _ = standalone(tmp_path, train_data, eval_data, point.ratio, point.seed, model_init=model_init)
        assert np.array_equal(callback.sweep.predictions(point)[0], logits)


def test_legs_of_several_epochs_are_the_standalone_runs_of_as_many(tmp_path, train_data, eval_data):
    callback = RatioSweepCallback(ratios=[1, 9], epochs_per_ratio=2)
    make_sweep(tmp_path / "sweep", train_data, eval_data, callback).train()
    assert len(callback.sweep.points) == 2
    for point in callback.sweep.points:
        logits, _ = standalone(tmp_path, train_data, eval_data, point.ratio, 42, {"num_train_epochs": 2})
        assert np.array_equal(callback.sweep.predictions(point)[0], logits)


def test_frozen_parameters_are_left_alone_and_not_copied(tmp_path, train_data, eval_data):
    model = make_model()
    model.bert.embeddings.requires_grad_(False)
    callback = RatioSweepCallback(ratios=[1, 9])
    trainer = WeightedLossTrainer(
        model=model,
        args=TrainingArguments(str(tmp_path), **quiet_args(**TRAINING)),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
        callbacks=[callback],
    )
    before = model.bert.embeddings.word_embeddings.weight.clone()
    assert "bert.embeddings.word_embeddings.weight" not in FreshState(trainer)._weights
    trainer.train()
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, before)


@pytest.mark.parametrize("save_strategy", ["best", "epoch", "steps"])
def test_the_best_ratios_model_is_left_in_the_trainer(tmp_path, train_data, eval_data, save_strategy):
    config = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "f1",
        "save_strategy": save_strategy,
        "eval_strategy": "epoch" if save_strategy == "epoch" else "steps",
        "eval_steps": 1000,
        "save_steps": 1000,
        "save_total_limit": 1,
    }
    callback = RatioSweepCallback(ratios=[0.1, 4, 300])
    trainer = make_sweep(tmp_path, train_data, eval_data, callback, config)
    trainer.train()
    sweep = RatioSweep.load(tmp_path)
    best = max(sweep.points, key=lambda point: point.f1)
    assert best.f1 > min(point.f1 for point in sweep.points)
    assert sweep.best("f1") == best.ratio
    assert trainer.model.config.weight_ratio == trainer.args.weight_ratio == best.ratio
    assert np.array_equal(trainer.predict(eval_data).predictions, sweep.predictions(best)[0])
    trainer.save_model(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["weight_ratio"] == best.ratio
    assert len(list(tmp_path.glob("checkpoint-*"))) <= 2


def test_without_best_model_the_trainer_says_that_it_holds_the_last_legs(tmp_path, train_data, eval_data, caplog):
    callback = RatioSweepCallback(ratios=[1, 9])
    trainer = make_sweep(tmp_path, train_data, eval_data, callback)
    trainer.train()
    assert trainer.model.config.weight_ratio == 9
    assert "load_best_model_at_end=True" in caplog.text
    assert np.array_equal(
        trainer.predict(eval_data).predictions, callback.sweep.predictions(callback.sweep.points[-1])[0]
    )


def test_plain_training_arguments_sweep_the_default_grid_and_come_back_unchanged(tmp_path, train_data, eval_data):
    callback = RatioSweepCallback(num_ratios=3, ratio_span=4)
    trainer = make_sweep(tmp_path, train_data, eval_data, callback, config_class=TrainingArguments)
    before = trainer.args.to_dict()
    compute_metrics = trainer.compute_metrics
    trainer.evaluate()
    trainer.args.eval_on_start = True
    trainer.train()
    trainer.args.eval_on_start = False
    sweep = callback.sweep
    assert sweep.ratios == sorted([sweep.natural_ratio / 4, sweep.natural_ratio, sweep.natural_ratio * 4, 1])
    assert trainer.args.to_dict() == before
    assert trainer.args.weight_ratio == sweep.ratios[-1]
    assert trainer.compute_metrics is compute_metrics


def test_the_users_metrics_are_logged_beside_the_sweeps_and_can_choose(tmp_path, train_data, eval_data):
    config = {"load_best_model_at_end": True, "metric_for_best_model": "flagged", "save_strategy": "best"}
    callback = RatioSweepCallback(ratios=[0.1, 300])
    trainer = make_sweep(
        tmp_path,
        train_data,
        eval_data,
        callback,
        config,
        compute_metrics=lambda prediction: {"flagged": int(prediction.predictions.argmax(-1).sum())},
    )
    trainer.train()
    evaluations = [entry for entry in trainer.state.log_history if "eval_flagged" in entry]
    assert [entry["eval_weight_ratio"] for entry in evaluations] == [0.1, 300]
    assert {"eval_precision", "eval_recall", "eval_plain_loss"} <= evaluations[0].keys()
    assert trainer.args.weight_ratio == 300


def test_predictions_are_read_by_datasets_and_the_plain_loss_is_theirs(tmp_path, train_data, eval_data):
    callback = RatioSweepCallback(ratios=[1, 9])
    make_sweep(tmp_path, train_data, eval_data, callback).train()
    for point in callback.sweep.points:
        rows = load_dataset(
            "parquet", data_files=str(tmp_path / point.predictions), split="train", cache_dir=str(tmp_path / "cache")
        )
        logits, labels = torch.tensor(rows["logits"][:]), torch.tensor(rows["label"][:])
        assert point.eval_plain_loss == pytest.approx(
            torch.nn.functional.cross_entropy(logits, labels).item(), abs=1e-6
        )
        assert point.tp + point.fn == labels.sum()
    assert callback.sweep.points[0].eval_loss == callback.sweep.points[0].eval_plain_loss
    assert callback.sweep.points[1].eval_loss != callback.sweep.points[1].eval_plain_loss


def test_several_classes_sweep_by_macro_averages(tmp_path):
    data = make_data(240, seed=5, share=0.3, names=("a", "b", "c"))
    callback = RatioSweepCallback(ratios=[1, 4])
    trainer = WeightedLossTrainer(
        model=make_model(num_labels=3),
        args=TrainingArguments(str(tmp_path), **quiet_args()),
        train_dataset=data,
        eval_dataset=data,
        data_collator=collate,
        callbacks=[callback],
    )
    trainer.train()
    logits, labels = callback.sweep.predictions(callback.sweep.points[1])
    expected = precision_recall(logits.argmax(-1), labels, average="macro")
    assert callback.sweep.points[1].recall == expected["recall"]


BEST = {"load_best_model_at_end": True, "save_strategy": "best"}
GROUPED = {"train_sampling_strategy": "group_by_length"}


class EpochData(torch.utils.data.Dataset):
    def __init__(self, data):
        self.data = list(data)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i]


class AugmentedData(EpochData):
    def set_epoch(self, epoch):
        pass


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"eval_data": None}, "needs an evaluation set"),
        ({"eval_data": "several"}, "holds several"),
        ({"train_data": AugmentedData(make_data(40, 0))}, "set_epoch"),
        (
            {"train_data": make_data(40, 0).to_iterable_dataset(), "config": {"class_counts": [3, 1], "max_steps": 9}},
            "length",
        ),
        ({"config": {"max_steps": 9}}, "max_steps=9 would cut the sweep"),
        ({"callback": {"ratios": None, "num_ratios": 3.0}}, "write a whole number from 2"),
        ({"callback": {"ratios": None, "ratio_span": "100"}}, "write a finite number above 1"),
        ({"callback": {"ratios": RatioSearch("f1"), "seeds": 5}}, r"write seeds=\[5\]"),
        ({"config": {"enable_jit_checkpoint": True}}, "enable_jit_checkpoint saves in the middle of a step"),
        ({"callback": {"ratios": []}}, "nothing to sweep over"),
        ({"callback": {"seeds": []}}, "nothing to sweep over"),
        ({"callback": {"ratios": [1, 0]}}, "positive finite number"),
        ({"callback": {"ratios": [1, float("nan")]}}, "positive finite number"),
        ({"callback": {"epochs_per_ratio": 0}}, "whole number from 1"),
        ({"callback": {"epochs_per_ratio": "2"}}, "whole number from 1"),
        ({"callback": {"ratios": 3.0}}, r"is no list: write ratios=\[3.0\]"),
        ({"callback": {"seeds": 3}}, r"is no list: write seeds=\[3\]"),
        ({"callback": {"ratios": "natural"}}, r"is no list: write ratios=\['natural'\]"),
        ({"callback": {"seeds": [-1]}}, "whole numbers from 0"),
        ({"callback": {"seeds": ["1"]}}, "whole numbers from 0"),
        ({"callback": {"output_dir": __file__}}, "cannot hold the sweep"),
        ({"eval_data": make_data(20, 0, names=("a", "b", "c"))}, "has 3 classes .* but the model has 2"),
        ({"eval_data": make_data(20, 0).remove_columns("label")}, "no label column"),
        ({"eval_data": make_data(20, 0).select([])}, "has 0 ham, 0 spam"),
        ({"eval_data": make_data(40, 0).filter(lambda row: row["label"] == 0)}, "the positive one among them"),
        ({"config": GROUPED | {"eval_do_concat_batches": False}}, "eval_do_concat_batches"),
        ({"config": BEST | {"metric_for_best_model": "precison"}}, "'precison' is not measured"),
        ({"config": {"class_weights": [1, 2]}}, "no ratio to sweep over"),
        ({"config": {"prediction_loss_only": True}}, "keep the predictions"),
        ({"config": BEST}, "'f1' or 'plain_loss'"),
        ({"early_stopping": True}, "EarlyStoppingCallback"),
        ({"config": {"train_sampling_strategy": "batch_rebalance"}}, "cannot be rewound"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sweep_that_cannot_work_is_refused_before_any_training(tmp_path, train_data, eval_data, change, sentence):
    steps = []

    class Steps(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            steps.append(1)

    evaluation = change.get("eval_data", eval_data)
    trainer = make_sweep(
        tmp_path,
        change.get("train_data", train_data),
        {"a": eval_data, "b": eval_data} if evaluation == "several" else evaluation,
        RatioSweepCallback(**{"ratios": [1, 2]} | change.get("callback", {})),
        {"metric_for_best_model": "loss", **change.get("config", {})},
        [Steps(), *([EarlyStoppingCallback()] if "early_stopping" in change else [])],
    )
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert not steps
    assert not (tmp_path / "sweep.json").exists()


def test_ratios_may_be_schemes(tmp_path, train_data, eval_data):
    callback = RatioSweepCallback(ratios=["natural", "sqrt", 1, "20"])
    make_sweep(tmp_path, train_data, eval_data, callback).train()
    natural = callback.sweep.natural_ratio
    assert callback.sweep.ratios == [1, natural**0.5, natural, 20]
    assert len(callback.sweep.points) == 4


def test_an_interrupted_sweeps_figures_are_not_those_of_the_model(tmp_path, train_data, eval_data):
    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step > 15:
                raise KeyboardInterrupt

    trainer = make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1, 9]), callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    facts = trainer._card_facts()
    assert facts["sweep"] is None
    assert facts["evaluation"] is None


@pytest.mark.parametrize(
    "config", [{"dataloader_drop_last": True}, {"dataloader_persistent_workers": True, "dataloader_num_workers": 1}]
)
def test_predictions_of_grouped_rows_come_in_the_order_of_the_data(tmp_path, train_data, eval_data, config):
    config = GROUPED | config | {"per_device_eval_batch_size": 16}
    callback = RatioSweepCallback(ratios=[1, 9])
    trainer = make_sweep(tmp_path, train_data, eval_data, callback, config)
    trainer.train()
    longest_first = trainer._get_eval_sampler(eval_data).rows
    rows = sorted(longest_first[:96] if config.get("dataloader_drop_last") else longest_first)
    logits, labels = RatioSweep.load(tmp_path).predictions(callback.sweep.points[-1])
    assert labels.tolist() == eval_data.select(rows)["label"][:]
    by_one = make_sweep(tmp_path / "by_one", train_data, eval_data, RatioSweepCallback(ratios=[1, 9]))
    by_one.model = trainer.model
    assert by_one.predict(eval_data.select(rows)).predictions == pytest.approx(logits, abs=1e-5)


def test_a_sweep_within_a_search_of_hyperparameters_is_refused(tmp_path, train_data, eval_data):
    trainer = make_sweep(
        tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1]), model_init=lambda: make_model()
    )
    with pytest.raises(InvalidInputError, match="leave RatioSweepCallback out"):
        trainer.hyperparameter_search(lambda trial: {}, backend="optuna", n_trials=1)


def test_what_is_no_number_among_the_users_metrics_is_left_out_of_the_record(tmp_path, train_data, eval_data):
    def compute_metrics(prediction):
        return {"text": "precision 0.5", "none": None, "nan": float("nan"), "half": np.float32(0.5)}

    callback = RatioSweepCallback(ratios=[1])
    make_sweep(tmp_path, train_data, eval_data, callback, compute_metrics=compute_metrics).train()
    assert RatioSweep.load(tmp_path).points[0].other_metrics.keys() == {"accuracy", "half"}


def test_a_chart_that_cannot_be_drawn_does_not_end_the_training(tmp_path, train_data, eval_data, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise RuntimeError("Failed to process string with tex")

    monkeypatch.setattr("weighloss.plot.plot_sweep", fail)
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1])).train()
    assert "The charts could not be drawn: Failed to process" in caplog.text


@pytest.mark.parametrize("sharding", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_sharded_training_is_refused_with_what_to_do_instead(tmp_path, train_data, eval_data, sharding):
    trainer = make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1, 2]))
    setattr(trainer, sharding, True)  # the real thing needs GPUs
    with pytest.raises(InvalidInputError, match="hyperparameter_search over weight_ratio"):
        trainer.train()


def test_a_folder_that_holds_another_sweep_is_refused(tmp_path, train_data, eval_data):
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1])).train()
    before = (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(InvalidInputError, match=r"already holds another sweep \(ratios: 2 here, 1 there\)"):
        make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[2])).train()
    assert (tmp_path / "sweep.json").read_bytes() == before


def test_another_requirement_of_the_same_sweep_is_sent_to_its_legs(tmp_path, train_data, eval_data):
    keeping = {"load_best_model_at_end": True, "save_strategy": "best", "metric_for_best_model": "f1"}
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1], choose="f1"), keeping).train()
    with pytest.raises(InvalidInputError, match=r"again: ask RatioSweep.load.*recall>=0.9'"):
        make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback([1], choose="recall>=0.9"), keeping).train()


def test_a_sweep_that_is_killed_leaves_every_finished_leg(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
from conftest import make_data; from test_sweep import make_sweep; from weighloss import RatioSweepCallback
make_sweep({str(tmp_path)!r}, make_data(192, 0), make_data(100, 1), RatioSweepCallback(ratios=range(1, 500))).train()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(list(tmp_path.glob("predictions/*.parquet"))) < 3:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    sweep = RatioSweep.load(tmp_path)
    assert 2 <= len(sweep.points) < 499
    for point in sweep.points:
        logits, labels = sweep.predictions(point)
        assert precision_recall(logits.argmax(-1), labels)["tp"] == point.tp
    assert sweep.break_even() is None or sweep.break_even() > 0


def test_an_interrupted_sweep_gives_the_trainer_back_its_settings(tmp_path, train_data, eval_data):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 15:
                raise KeyboardInterrupt

    callback = RatioSweepCallback(ratios=[1, 2, 3], seeds=[5])
    trainer = make_sweep(tmp_path, train_data, eval_data, callback, callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.args.num_train_epochs == 3.0
    assert trainer.args.seed == 42
    assert trainer.args.weight_ratio is None
    assert len(RatioSweep.load(tmp_path).points) == 1

    # and swept again it starts from what it started from
    trainer.pop_callback(Interrupt)
    callback.output_dir = tmp_path / "again"
    trainer.train()
    logits, _ = standalone(tmp_path, train_data, eval_data, 1, 5)
    assert np.array_equal(callback.sweep.predictions(callback.sweep.points[0])[0], logits)


def test_an_error_in_a_leg_reaches_the_user_as_it_is(tmp_path, train_data, eval_data):
    class Breaks(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise RuntimeError("CUDA out of memory")

    trainer = make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1, 2]), callbacks=[Breaks()])
    with pytest.raises(RuntimeError, match="CUDA out of memory") as caught:
        trainer.train()
    assert caught.value.__cause__ is None
    assert not has_no_room(caught.value)


def test_a_sweep_interrupted_in_an_evaluation_leaves_a_trainer_that_evaluates(tmp_path, train_data, eval_data):
    class Interrupt(TrainerCallback):
        def on_prediction_step(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    trainer = make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1, 2]), callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.pop_callback(Interrupt)
    assert trainer.evaluate()["eval_tp"] >= 0
    assert not RatioSweep.load(tmp_path).points


def test_a_training_that_is_stopped_in_a_leg_says_that_legs_ratio(tmp_path, train_data, eval_data):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = control.should_training_stop or state.global_step == 15

    callback = RatioSweepCallback(ratios=[1, 2, 3])
    trainer = make_sweep(tmp_path, train_data, eval_data, callback, callbacks=[Stop()])
    trainer.train()
    assert [point.ratio for point in callback.sweep.points] == [1]
    assert trainer.model.config.weight_ratio == 2


def test_a_smaller_batch_size_that_the_finder_settles_on_gives_the_legs_of_that_batch_size(
    tmp_path, train_data, eval_data
):
    class OutOfMemory(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if args.per_device_train_batch_size == 16 and state.train_batch_size == 16 and state.global_step == 2:
                raise RuntimeError("CUDA out of memory.")

    config = {"auto_find_batch_size": True, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}
    callback = RatioSweepCallback(ratios=[1, 9])
    trainer = make_sweep(tmp_path / "sweep", train_data, eval_data, callback, config, [OutOfMemory()])
    trainer.train()
    found = trainer._train_batch_size
    assert found < 16
    config = {"per_device_train_batch_size": found, "gradient_accumulation_steps": 1}
    for point in callback.sweep.points:
        logits, _ = standalone(tmp_path, train_data, eval_data, point.ratio, 42, config)
        assert np.abs(callback.sweep.predictions(point)[0] - logits).max() < 1e-6


def test_optimizer_and_schedule_of_the_users_own_are_rewound(tmp_path, train_data, eval_data):
    def optimizers(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)

    results = []
    for ratios in ([9], [1, 9]):
        model = make_model()
        callback = RatioSweepCallback(ratios=ratios)
        WeightedLossTrainer(
            model=model,
            args=TrainingArguments(str(tmp_path / str(len(ratios))), **quiet_args(**TRAINING)),
            train_dataset=train_data,
            eval_dataset=eval_data,
            data_collator=collate,
            callbacks=[callback],
            optimizers=optimizers(model),
        ).train()
        results.append(callback.sweep.predictions(callback.sweep.points[-1])[0])
    assert np.array_equal(*results)


def test_the_callback_refuses_the_trainer_of_transformers(tmp_path, train_data, eval_data):
    trainer = Trainer(
        model=make_model(),
        args=TrainingArguments(str(tmp_path), **quiet_args()),
        train_dataset=train_data,
        data_collator=collate,
        callbacks=[RatioSweepCallback(ratios=[1])],
    )
    with pytest.raises(InvalidInputError, match="WeightedLossTrainer"):
        trainer.train()


def test_what_a_sweep_does_not_use_is_said(tmp_path, train_data, eval_data, caplog):
    config = {"num_train_epochs": 5, "weight_ratio": 50.0}
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1]), config).train()
    assert "num_train_epochs=5 is not used" in caplog.text
    assert "weight_ratio=50.0 is not used" in caplog.text


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"ratios": np.array([4.0, 1.0])}, ([1, 4], [42])),
        ({"ratios": (2**i for i in range(2)), "seeds": np.arange(2)}, ([1, 2], [0, 1])),
        ({"ratios": range(1, 3), "seeds": [3, 3]}, ([1, 2], [3])),
    ],
    ids=["array", "generator", "range"],
)
def test_ratios_and_seeds_may_be_any_series_of_numbers(tmp_path, train_data, eval_data, given, taken):
    callback = RatioSweepCallback(**given)
    make_sweep(tmp_path, train_data, eval_data, callback).train()
    sweep = RatioSweep.load(tmp_path)
    assert (sweep.ratios, sweep.seeds) == taken
    assert len(sweep.points) == len(sweep.ratios) * len(sweep.seeds)


# Everything is imported once; a process of its own for each number of legs begins with that and nothing else.
MEMORY = """
import os, resource, sys; sys.path.insert(0, {tests!r})
import torch
from conftest import collate, make_data, quiet_args
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
from weighloss import *
config = BertConfig(vocab_size=60_000, hidden_size=256, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256)
def train(legs):
    trainer = WeightedLossTrainer(
        model=BertForSequenceClassification(config),
        args=TrainingArguments({path!r} + str(legs), **quiet_args(num_train_epochs=1)),
        train_dataset=make_data(64, 0), eval_dataset=make_data(64, 1), data_collator=collate,
        callbacks=[RatioSweepCallback(ratios=range(1, legs + 1))] if legs else [],
    )
    trainer.train()
    weights = sum(p.numel() * 4 for p in trainer.model.parameters())
    print("peak", legs, weights, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
for legs in (0, 2, 12):
    child = os.fork()
    if not child:
        train(legs)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
def test_peak_memory_is_one_fine_tune_and_one_copy_of_the_weights_however_many_legs(tmp_path):
    code = MEMORY.format(tests=str(ROOT / "tests"), path=str(tmp_path / "legs"))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    measured = [map(int, line.split()[1:]) for line in run.stdout.splitlines() if line.startswith("peak ")]
    weights, peak = {}, {}
    for legs, weight, most in measured:
        weights[legs], peak[legs] = weight, most
    assert weights[0] > 60e6
    assert peak[2] - peak[0] < 1.25 * weights[0]
    assert peak[12] - peak[2] < 0.05 * peak[2]
