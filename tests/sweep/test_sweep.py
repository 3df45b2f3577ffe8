import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import load_dataset
from test_legs import standalone
from transformers import BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from conftest import ROOT, collate, make_data, make_model, parameters, quiet_args
from weighloss import (
    InvalidInputError,
    RatioSearch,
    RatioSweep,
    RatioSweepCallback,
    WeightedLossConfig,
    WeightedLossTrainer,
    apply_threshold,
    precision_recall,
    reports,
)
from weighloss.results.files import has_no_room
from weighloss.sweep.leg import InitialState

pytestmark = pytest.mark.usefixtures("without_charts")

TRAINING = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-2,
    "warmup_steps": 0.2,
    "weight_decay": 0.01,
}
SHORT = {"max_steps": 2}  # where what is learned does not matter


class WithoutBias(BertForSequenceClassification):
    """A classifier whose last layer has no bias that could carry a threshold."""

    def __init__(self, config):
        super().__init__(config)
        self.classifier = torch.nn.Linear(config.hidden_size, config.num_labels, bias=False)

    @classmethod
    def small(cls):
        return cls(make_model().config)


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


@pytest.mark.parametrize("choose", [None, "recall>=0.9", "precision>=0.1 @90%"])
def test_by_default_the_trainer_holds_the_chosen_legs_model_and_it_is_in_the_folder(
    tmp_path, train_data, eval_data, choose
):
    callback = RatioSweepCallback(ratios=[0.1, 9, 300], choose=choose)
    trainer = make_sweep(tmp_path, train_data, eval_data, callback, {"learning_rate": 3e-3, "num_train_epochs": 1})
    trainer.train()
    sweep = RatioSweep.load(tmp_path)
    kept = sweep.operating_point
    assert kept == sweep.choose(choose).point == callback.sweep.operating_point
    assert kept.is_argmax == (choose is None)
    assert trainer.model.config.weight_ratio == trainer.args.weight_ratio == kept.ratio
    assert trainer.model.config.requirement == sweep.requirement == (choose or "f1")
    logits, _ = sweep.predictions(kept.leg)
    held = trainer.predict(eval_data)
    assert np.allclose(held.predictions, logits - [0, kept.threshold], atol=1e-5)
    if choose is None:
        assert np.array_equal(held.predictions, logits)
        assert not hasattr(trainer.model.config, "threshold")
    else:
        assert trainer.model.config.threshold == [0, kept.threshold]
    # Its most probable class is the decision of the chosen rule, for every example.
    assert np.array_equal(held.predictions.argmax(1), logits[:, 1] - logits[:, 0] > kept.threshold)
    assert held.metrics["test_tp"] == kept.tp
    assert held.metrics["test_recall"] == pytest.approx(kept.recall)
    saved = type(trainer.model).from_pretrained(tmp_path)
    assert torch.equal(parameters(saved), parameters(trainer.model))
    assert saved.config.weight_ratio == kept.ratio
    assert not (tmp_path / "legs").exists()
    assert trainer.args.output_dir == str(tmp_path)


def test_frozen_weights_come_back_and_one_copy_is_kept(tmp_path, train_data, eval_data):
    model = make_model()
    model.bert.embeddings.requires_grad_(False)
    trainer = WeightedLossTrainer(
        model=model,
        args=TrainingArguments(str(tmp_path), **quiet_args(**TRAINING)),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
    )
    state, before = InitialState(trainer), parameters(model).clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    model.requires_grad_(True)
    state.restore()
    assert torch.equal(parameters(model), before)
    assert not any(parameter.requires_grad for parameter in model.bert.embeddings.parameters())
    assert model.classifier.weight.requires_grad


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
    assert trainer.args.weight_ratio == sweep.kept_point.ratio
    assert trainer.compute_metrics is compute_metrics


def test_the_users_metrics_are_in_the_record_and_logged_beside_the_losses(tmp_path, train_data, eval_data):
    logged = []

    class Logs(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            logged.append(dict(logs))

    callback = RatioSweepCallback(ratios=[0.1, 300])
    trainer = make_sweep(
        tmp_path,
        train_data,
        eval_data,
        callback,
        callbacks=[Logs()],
        compute_metrics=lambda prediction: {"flagged": int(prediction.predictions.argmax(-1).sum())},
    )
    trainer.train()
    evaluations = [entry for entry in logged if "eval_flagged" in entry]
    assert [entry["eval_weight_ratio"] for entry in evaluations] == [0.1, 300]
    assert "eval_plain_loss" in evaluations[0]
    for point, entry in zip(callback.sweep.points, evaluations, strict=True):
        assert point.other_metrics["flagged"] == entry["eval_flagged"] == point.tp + point.fp


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


def test_several_classes_sweep_by_macro_averages(tmp_path, caplog):
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
    assert "threshold must" not in caplog.text  # argmax is a rule for any number of classes


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"eval_data": None}, "a sweep needs an eval_dataset of known length, got NoneType: give a dataset"),
        ({"eval_data": make_data(40, 0).to_iterable_dataset()}, "an eval_dataset .* got IterableDataset: give"),
        ({"callback": {"test_dataset": make_data(40, 0).to_iterable_dataset()}}, "a test_dataset .* got Iterable"),
        ({"train_data": None, "config": {"class_counts": [9, 1]}}, "a sweep needs training data: give train_dataset"),
        ({"config": {"enable_jit_checkpoint": True}}, "enable_jit_checkpoint saves in the middle of a step"),
        ({"callback": {"output_dir": __file__}}, "cannot be written"),
        ({"eval_data": make_data(20, 0, names=("a", "b", "c"))}, "num_labels=2: load the model with num_labels=3"),
        ({"eval_data": make_data(20, 0).remove_columns("label")}, "no label column"),
        ({"eval_data": make_data(20, 0).select([])}, "has 0 ham, 0 spam"),
        ({"eval_data": make_data(40, 0).filter(lambda row: row["label"] == 0)}, "recall need both classes"),
        ({"eval_data": make_data(40, 0).filter(lambda row: row["label"] == 1)}, "recall need both classes"),
        ({"config": {"class_weights": [1, 2]}}, "no ratio to sweep over"),
        ({"callback": {"choose": "cost [[0, 1, 1], [9, 0, 5], [1, 1, 0]]"}}, "has a 3 x 3 matrix: .* the 2 classes"),
        (
            {"preprocess_logits_for_metrics": lambda logits, labels: logits, "compute_metrics": lambda p: {}},
            "preprocess",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sweep_that_cannot_work_is_refused_before_any_training(tmp_path, train_data, eval_data, change, sentence):
    steps = []

    class Steps(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            steps.append(1)

    given = {
        name: value for name, value in change.items() if name not in ("eval_data", "train_data", "config", "callback")
    }
    trainer = make_sweep(
        tmp_path,
        change.get("train_data", train_data),
        change.get("eval_data", eval_data),
        RatioSweepCallback(**{"ratios": [1, 2]} | change.get("callback", {})),
        change.get("config", {}),
        [Steps()],
        **given,
    )
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    assert not steps
    assert not (tmp_path / "sweep.json").exists()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"num_ratios": 3.0}, "num_ratios must be an integer of at least 2, got 3.0"),
        ({"num_ratios": 1}, "num_ratios must be an integer of at least 2, got 1"),
        ({"ratio_span": "100"}, "ratio_span must be a finite number above 1, such as 10, got '100'"),
        ({"ratios": []}, r"ratios must have at least one value, got \[\]"),
        ({"seeds": []}, r"seeds must have at least one value, got \[\]"),
        ({"ratios": [1, 0]}, "positive finite number"),
        ({"ratios": [1, float("nan")]}, "positive finite number"),
        ({"ratios": ["natural", "cubic"]}, "'cubic'"),
        ({"epochs_per_ratio": 0}, "epochs_per_ratio must be an integer of at least 1, got 0"),
        ({"epochs_per_ratio": "2"}, "epochs_per_ratio must be an integer of at least 1, got '2'"),
        ({"ratios": 3.0}, r"ratios must be a list, got 3.0: write ratios=\[3.0\]"),
        ({"seeds": 3}, r"seeds must be a list, got 3: write seeds=\[3\]"),
        ({"ratios": "natural"}, r"ratios must be a list, got 'natural': write ratios=\['natural'\]"),
        ({"seeds": [-1]}, "seeds must be integers from 0 to 4294967295"),
        ({"seeds": ["1"]}, "seeds must be integers from 0 to 4294967295"),
        ({"choose": "recal>=0.9"}, "is not a requirement: write 'recall>=0.9'"),
        ({"ratios": RatioSearch(), "seeds": [1, 2]}, "a search needs a single seed"),
        ({"choose": "recall>=0.9 @90%", "threshold": "argmax"}, "leave out threshold='argmax'"),
        ({"choose": "recall>=0.9", "threshold": 0.5}, "threshold must be 'any' or 'argmax', got 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_parameter_is_refused_by_the_constructor_before_there_are_any_data(parameters, sentence):
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        RatioSweepCallback(**parameters)
    assert "\n" not in str(caught.value)


def test_ratios_may_be_schemes(tmp_path, train_data, eval_data):
    callback = RatioSweepCallback(ratios=["natural", "sqrt", 1, "20"])
    make_sweep(tmp_path, train_data, eval_data, callback, SHORT).train()
    natural = callback.sweep.natural_ratio
    assert callback.sweep.ratios == [1, natural**0.5, natural, 20]
    assert len(callback.sweep.points) == 4


def test_an_interrupted_sweeps_figures_are_not_those_of_the_model(tmp_path, train_data, eval_data):
    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if args.weight_ratio == 9:
                raise KeyboardInterrupt

    trainer = make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1, 9]), callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert trainer.finished_sweep is None
    assert "model-index" not in card


def test_a_sweep_within_a_search_of_hyperparameters_is_refused(tmp_path, train_data, eval_data):
    trainer = make_sweep(
        tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1]), model_init=lambda: make_model()
    )
    with pytest.raises(InvalidInputError, match="leave RatioSweepCallback out"):
        trainer.hyperparameter_search(lambda trial: {}, backend="optuna", n_trials=1)


def test_what_is_no_number_among_the_users_metrics_is_left_out_of_the_record(tmp_path, train_data, eval_data):
    def compute_metrics(prediction):
        others = {"text": "precision 0.5", "none": None, "nan": float("nan"), "accuracy": float("nan")}
        return others | {"half": np.float32(0.5)}

    callback = RatioSweepCallback(ratios=[1])
    make_sweep(tmp_path, train_data, eval_data, callback, SHORT, compute_metrics=compute_metrics).train()
    point = RatioSweep.load(tmp_path).points[0]
    assert point.other_metrics == {"accuracy": (point.tp + point.tn) / len(eval_data), "half": 0.5}


@pytest.mark.parametrize("function", ["plot.plot_sweep", "html.write_report"])
def test_a_chart_that_cannot_be_drawn_does_not_end_the_training(
    tmp_path, train_data, eval_data, monkeypatch, caplog, function
):
    def fail(*args, **kwargs):
        raise RuntimeError("Failed to process string with tex")

    monkeypatch.setattr(f"weighloss.reports.{function}", fail)
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1]), SHORT).train()
    assert "The charts could not be drawn: Failed to process" in caplog.text


@pytest.mark.parametrize("sharding", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_sharded_training_is_refused_with_what_to_do_instead(tmp_path, train_data, eval_data, sharding):
    trainer = make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1, 2]))
    setattr(trainer, sharding, True)  # the real thing needs GPUs
    with pytest.raises(InvalidInputError, match="give the trainer model_init"):
        trainer.train()


def test_a_folder_that_holds_another_sweep_is_refused(tmp_path, train_data, eval_data):
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1]), SHORT).train()
    before = (tmp_path / "sweep.json").read_bytes()
    with pytest.raises(InvalidInputError, match=r"already contains another sweep \(ratios: 2 here, 1 there\)"):
        make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[2]), SHORT).train()
    assert (tmp_path / "sweep.json").read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "README.md", "model.safetensors"])
def test_a_folder_with_files_of_somebody_else_is_refused(tmp_path, train_data, eval_data, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InvalidInputError, match=f"contains {name}, which no sweep wrote"):
        make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1])).train()
    assert (tmp_path / name).read_text() == "mine"


def test_checkpoints_and_other_files_that_were_there_before_stay(tmp_path, train_data, eval_data):
    for name in ("checkpoint-3", "checkpoint-500", "legs/mine", "runs/mine"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "notes.txt").write_text("mine")
    config = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 1}
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback(ratios=[1, 2]), config).train()
    assert len(list(tmp_path.rglob("notes.txt"))) == 4
    assert not list(tmp_path.glob("legs/leg-*"))


def test_another_requirement_of_a_finished_sweep_trains_the_leg_whose_model_is_gone_again(
    tmp_path, train_data, eval_data
):
    steps = []

    class Steps(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(args.weight_ratio)

    config = {"learning_rate": 3e-3}
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback([0.2, 2, 300]), config).train()
    first = RatioSweep.load(tmp_path)
    callback = RatioSweepCallback([0.2, 2, 300], choose="cost fp=1000 fn=1", threshold="argmax")
    trainer = make_sweep(tmp_path, train_data, eval_data, callback, config, [Steps()])
    trainer.train()
    assert callback.sweep.kept_point.ratio != first.kept_point.ratio
    assert set(steps) == {callback.sweep.kept_point.ratio} == {trainer.args.weight_ratio}
    kept = callback.sweep.predictions(callback.sweep.kept_point)[0]
    assert np.array_equal(trainer.predict(eval_data).predictions, kept)


def test_a_leg_that_is_trained_again_loses_nothing_when_it_is_stopped(tmp_path, train_data, eval_data):
    steps = []

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            steps.append(args.weight_ratio)
            raise KeyboardInterrupt

    config = {"learning_rate": 3e-3}
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback([0.2, 2, 300]), config).train()
    before, weights = RatioSweep.load(tmp_path), (tmp_path / "model.safetensors").read_bytes()
    other = RatioSweepCallback([0.2, 2, 300], choose="cost fp=1000 fn=1", threshold="argmax")
    trainer = make_sweep(tmp_path, train_data, eval_data, other, config, [Stop()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert len(steps) == 1
    again = RatioSweep.load(tmp_path)
    assert (again.points, again.operating_point) == (before.points, before.operating_point)
    assert (tmp_path / "model.safetensors").read_bytes() == weights
    make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback([0.2, 2, 300]), config, [Stop()]).train()
    assert len(steps) == 1  # the first requirement finds everything as it was


def test_another_threshold_for_the_leg_that_is_kept_trains_nothing(tmp_path, train_data, eval_data):
    config = {"learning_rate": 3e-3}
    weights = []
    for choose in (None, "recall>=0.9", "precision>=0.9", None):
        callback = RatioSweepCallback([9], choose=choose)
        trainer = make_sweep(tmp_path, train_data, eval_data, callback, config)
        trainer.train()
        rule = RatioSweep.load(tmp_path).operating_point
        saved = type(trainer.model).from_pretrained(tmp_path)
        assert getattr(saved.config, "threshold", [0, 0]) == [0, rule.threshold]
        weights.append(saved.classifier.bias.detach() + torch.tensor([0, rule.threshold]))
        assert trainer.state.global_step in (0, callback.sweep.points[0].global_step)
        if choose is not None:
            assert rule.threshold
    assert all(torch.allclose(bias, weights[0], atol=1e-6) for bias in weights)


def test_the_threshold_of_the_model_that_a_sweep_starts_from_is_not_in_the_model_that_it_keeps(
    tmp_path, train_data, eval_data
):
    for _ in range(2):  # the second time nothing is left to train
        trainer = make_sweep(tmp_path, train_data, eval_data, RatioSweepCallback([1]), SHORT)
        apply_threshold(trainer.model, 1.5)
        trainer.train()
    saved = type(trainer.model).from_pretrained(tmp_path)
    assert torch.equal(trainer.model.classifier.bias, saved.classifier.bias)


def test_a_model_that_cannot_carry_a_threshold_is_said_before_training_and_keeps_it_in_the_record(
    tmp_path, train_data, eval_data, caplog
):
    callback = RatioSweepCallback([9], choose="recall>=0.9")
    trainer = make_sweep(tmp_path, train_data, eval_data, callback, model_init=WithoutBias.small)
    trainer.train()
    assert caplog.text.count("the threshold cannot be part of a WithoutBias") == 2
    rule = RatioSweep.load(tmp_path).operating_point
    assert rule.threshold
    assert not hasattr(trainer.model.config, "threshold")
    assert np.array_equal(trainer.predict(eval_data).predictions, callback.sweep.predictions(rule.leg)[0])
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "could not be made part of this model" in card
    assert f"| {rule.leg.precision:.3f}" in card


def test_legs_are_measured_on_the_test_set_too_and_nothing_is_chosen_on_it(tmp_path, train_data, eval_data):
    test_data = eval_data.select(range(5, 25))
    callback = RatioSweepCallback([1, 9], choose="recall>=0.9", test_dataset=test_data)
    trainer = make_sweep(tmp_path / "with", train_data, eval_data, callback, {"learning_rate": 3e-3})
    trainer.train()
    sweep = RatioSweep.load(tmp_path / "with")
    for point in sweep.points:
        logits, labels = sweep.predictions(point, "test")
        assert np.array_equal(labels, test_data["label"])
        assert np.allclose(logits, sweep.predictions(point)[0][5:25], atol=1e-5)
    assert "(test data)" in reports.compare_with_threshold(sweep)
    without = RatioSweepCallback([1, 9], choose="recall>=0.9")
    make_sweep(tmp_path / "without", train_data, eval_data, without, {"learning_rate": 3e-3}).train()
    assert replace(without.sweep.operating_point.leg, seconds=0) == replace(sweep.operating_point.leg, seconds=0)
    assert without.sweep.operating_point.threshold == sweep.operating_point.threshold
    other = RatioSweepCallback([1, 9], choose="recall>=0.9", test_dataset=test_data.select(range(10)))
    trainer = make_sweep(tmp_path / "with", train_data, eval_data, other, {"learning_rate": 3e-3})
    with pytest.raises(InvalidInputError, match="the test data differs"):
        trainer.train()


def test_an_interrupted_sweep_gives_the_trainer_back_its_settings(tmp_path, train_data, eval_data):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if args.weight_ratio == 2 and state.global_step == 3:
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
    trainer.args.output_dir = str(tmp_path / "again")
    trainer.train()
    logits, _ = standalone(tmp_path / "alone", train_data, eval_data, 1, 5)
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


def test_a_stream_that_can_be_read_only_once_is_refused_in_the_second_leg(tmp_path, train_data, eval_data):
    class Once(torch.utils.data.IterableDataset):
        rows = iter(list(train_data))

        def __iter__(self):
            return self.rows

    config = {"class_counts": [3, 1], "max_steps": 12, "accelerator_config": {"dispatch_batches": False}}
    trainer = make_sweep(tmp_path, Once(), eval_data, RatioSweepCallback(ratios=[1, 9]), config)
    with pytest.raises(InvalidInputError, match="can be read only once"):
        trainer.train()
    assert len(RatioSweep.load(tmp_path).points) == 1


def test_one_line_is_printed_for_each_leg_and_no_dictionaries(tmp_path, train_data, eval_data, capsys):
    config = {"logging_steps": 1, "disable_tqdm": False}
    callback = RatioSweepCallback(ratios=[1, 9])
    make_sweep(tmp_path, train_data, eval_data, callback, config).train()
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line[:22].split() for line in lines] == [
        ["leg", "1", "of", "2", "w_r", "1"],
        ["leg", "2", "of", "2", "w_r", "9"],
    ]
    assert all("precision" in line and "recall" in line for line in lines)
    assert "leg 2 of 2, w_r = 9" in printed.err
    assert "{" not in printed.out + printed.err


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
    make_sweep(tmp_path, train_data, eval_data, callback, SHORT).train()
    sweep = RatioSweep.load(tmp_path)
    assert (sweep.ratios, sweep.seeds) == taken
    assert len(sweep.points) == len(sweep.ratios) * len(sweep.seeds)


# Everything is imported once; a process of its own for each number of legs begins with that and nothing else.
MEMORY = """
import gc, os, resource, sys; sys.path.insert(0, {tests!r})
import torch
from conftest import collate, make_data, quiet_args
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
from weighloss import *
from weighloss.reports import html, plot
html.write_report = lambda *arguments: None  # whose library takes more memory than the model
config = BertConfig(vocab_size=60_000, hidden_size=256, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256)
def train(legs):
    trainer = WeightedLossTrainer(
        model=BertForSequenceClassification(config),
        args=TrainingArguments({path!r} + str(legs), **quiet_args(per_device_train_batch_size=32)),
        train_dataset=make_data(64, 0), eval_dataset=make_data(64, 1), data_collator=collate,
        callbacks=[RatioSweepCallback(ratios=range(1, legs + 1))] if legs else [],
    )
    trainer.train()
    weights = sum(p.numel() * 4 for p in trainer.model.parameters())
    print("peak", legs, weights, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
gc.freeze()
for legs in (0, 2, 5):
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
    assert peak[5] - peak[2] < 0.05 * peak[2]
