"""The table in docs/where_it_works.md: every value of it is the id of a test here or in test_distributed.py."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from matplotlib.backends.backend_agg import FigureCanvasAgg
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    BertForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
    default_data_collator,
    set_seed,
)

from conftest import collate, losses, make_data, make_model, parameters, quiet_args
from weighloss import (
    OperatingPoint,
    RatioSweep,
    RatioSweepCallback,
    WeightedLossConfig,
    WeightedLossTrainer,
    plot_sweep,
)
from weighloss.reports.text import sentence as sentence_of

# SGD without clipping: nothing hides a gradient of another scale.
TRAINING = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "logging_steps": 1}
TRAINING |= {"per_device_train_batch_size": 16, "num_train_epochs": 1, "use_cpu": True}


def arrays(name: str, *shape: int) -> Dataset:
    """Arrays of noise, shifted by 1 in the positive class."""
    generator = np.random.default_rng(0)
    labels = (generator.random(96) < 0.2).astype(int)
    values = generator.normal(size=(96, *shape)) + labels.reshape(-1, *[1] * len(shape))
    return Dataset.from_dict({name: values.tolist(), "label": labels.tolist()})


def image_model() -> torch.nn.Module:
    set_seed(0)
    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=2, num_labels=2)
    config.update({"num_attention_heads": 2, "intermediate_size": 16, "hidden_dropout_prob": 0.0})
    return ViTForImageClassification(config)


def audio_model() -> torch.nn.Module:
    set_seed(0)
    config = Wav2Vec2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    config.update({"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2})
    config.update({"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 8})
    return Wav2Vec2ForSequenceClassification(config)  # with its masking of spans


def token_data(size: int = 96, seed: int = 0) -> Dataset:
    """Every token above 45 is of class 1, above 48 of class 2; the first of a sequence does not count."""
    data = make_data(size, seed).remove_columns("label")
    labels = [[-100, *(int(i > 45) + int(i > 48) for i in row[1:])] for row in data["input_ids"][:]]
    return data.add_column("labels", labels)


def token_model() -> torch.nn.Module:
    config = make_model(dropout=0.0, num_labels=3).config
    set_seed(0)
    return BertForTokenClassification(config)


def pad_tokens(rows: list[dict]) -> dict[str, torch.Tensor]:
    batch = collate([row | {"label": 0} for row in rows])
    length = batch["input_ids"].shape[1]
    labels = [row["labels"] + [-100] * (length - len(row["labels"])) for row in rows]
    return batch | {"labels": torch.tensor(labels)}


def multi_label_data(size: int = 96, seed: int = 0, unknown: bool = False) -> Dataset:
    """Label l stands for a token of its own; the third is on most examples, and may be unknown for some."""
    data = make_data(size, seed).remove_columns("label")
    hot = [[float(any(i % 11 == 0 for i in row)), float(46 in row), float(len(row) > 7)] for row in data["input_ids"]]
    if unknown:
        hot = [[*row[:2], -100.0] if i % 5 == 0 else row for i, row in enumerate(hot)]
    features = Features(data.features | {"labels": List(Value("float32"))})
    return Dataset.from_dict(data.to_dict() | {"labels": hot}, features=features)


def multi_label_model() -> torch.nn.Module:
    return make_model(dropout=0.0, num_labels=3, problem_type="multi_label_classification")


def stack_labels(rows: list[dict]) -> dict[str, torch.Tensor]:
    batch = collate([row | {"label": 0} for row in rows])
    return batch | {"labels": torch.tensor([row["labels"] for row in rows])}


def collate_target(rows: list[dict]) -> dict[str, torch.Tensor]:
    batch = collate(rows)
    return batch | {"target": batch.pop("labels")}


def collate_intent(rows: list[dict]) -> dict[str, torch.Tensor]:
    return collate([row | {"label": row["intent"]} for row in rows])


class NoKwargs(BertForSequenceClassification):
    def forward(self, input_ids=None, attention_mask=None, labels=None):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


class HalfLogits(BertForSequenceClassification):
    def forward(self, input_ids=None, attention_mask=None, labels=None, **kwargs):
        outputs = super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels, **kwargs)
        outputs.logits = outputs.logits.half()
        return outputs


class OwnLabelName(BertForSequenceClassification):
    def forward(self, input_ids=None, attention_mask=None, target=None):
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=target)


def as_class(model_class: type) -> Callable[[], torch.nn.Module]:
    def build() -> torch.nn.Module:
        config = make_model(dropout=0.0).config
        set_seed(0)
        return model_class(config)

    return build


def lora() -> torch.nn.Module:
    peft = pytest.importorskip("peft")
    model = make_model(dropout=0.0)
    set_seed(1)
    return peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"]))


class Items(torch.utils.data.Dataset):
    def __init__(self, data: Dataset) -> None:
        self.rows = list(data)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        return {
            name: values for name, values in self.rows[i].items() if torch.rand(()) < 2
        }  # draws, as augmentation does


def too_large_above(size: int) -> Callable[[list[dict]], dict[str, torch.Tensor]]:
    def collate_or_fail(rows: list[dict]) -> dict[str, torch.Tensor]:
        if len(rows) > size:
            raise RuntimeError("CUDA out of memory.")
        return collate(rows)

    return collate_or_fail


def plain_model() -> torch.nn.Module:
    return make_model(dropout=0.0)


class Gradients(TrainerCallback):
    """Keeps the gradient of every optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(torch.cat([p.grad.ravel() for p in model.parameters() if p.grad is not None]).clone())


@dataclass
class Mode:
    """A training: what differs from the plain one, and what the base Trainer has in its place."""

    data: Any = field(default_factory=lambda: make_data(96, 0))
    model: Callable[[], torch.nn.Module] = plain_model
    collator: Callable[[list[dict]], dict[str, torch.Tensor]] = collate
    config: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)  # fields of this class
    tolerance: float = 1e-6  # against the loss of the base Trainer's model, which is not always in float32


ROWS = make_data(96, 0)
WHOLE_STEP = {"per_device_train_batch_size": 16}
MODES = {
    "task-two_classes": Mode(config={"optim": "adamw_torch", "learning_rate": 1e-3, "max_grad_norm": 1.0}),
    "task-several_classes": Mode(
        make_data(96, 0, 0.3, ("a", "b", "c")), lambda: make_model(dropout=0.0, num_labels=3)
    ),
    "task-tokens": Mode(token_data(), token_model, pad_tokens),
    "task-several_labels": Mode(multi_label_data(), multi_label_model, stack_labels),
    "task-images": Mode(arrays("pixel_values", 1, 8, 8), image_model, default_data_collator),
    "task-audio": Mode(arrays("input_values", 400), audio_model, default_data_collator),
    "step-single_examples": Mode(
        config={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 16}, base={"config": WHOLE_STEP}
    ),
    "step-tokens_in_micro_batches": Mode(
        token_data(),
        token_model,
        pad_tokens,
        config={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        base={"config": WHOLE_STEP},
    ),
    "step-incomplete_last": Mode(
        ROWS.select(range(91)),
        config={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        base={"config": WHOLE_STEP},
    ),
    "step-group_by_length": Mode(config={"train_sampling_strategy": "group_by_length"}),
    "step-auto_find_batch_size": Mode(collator=too_large_above(14), config={"auto_find_batch_size": True}),
    "precision-float32": Mode(),
    "precision-bf16_autocast": Mode(config={"bf16": True}),
    "precision-bf16_weights": Mode(model=lambda: make_model(dropout=0.0).to(torch.bfloat16), tolerance=1e-2),
    "precision-float16_logits": Mode(model=as_class(HalfLogits), tolerance=1e-4),
    "wrappers-lora": Mode(model=lora),
    "wrappers-torch_compile": Mode(config={"torch_compile": True, "torch_compile_backend": "aot_eager"}),
    "wrappers-gradient_checkpointing": Mode(config={"gradient_checkpointing": True}),
    "wrappers-forward_without_kwargs": Mode(model=as_class(NoKwargs)),
    "wrappers-tuples": Mode(model=lambda: make_model(dropout=0.0, return_dict=False)),
    "wrappers-label_names": Mode(
        model=as_class(OwnLabelName),
        collator=collate_target,
        config={"label_names": ["target"], "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        base={"model": plain_model, "collator": collate, "config": WHOLE_STEP},
    ),
    "regularisers-label_smoothing": Mode(config={"label_smoothing_factor": 0.1}),
    "regularisers-neftune": Mode(config={"neftune_noise_alpha": 5.0}),
    "data-datasets": Mode(make_data(150, 0).add_column("text", ["…"] * 150).shuffle(seed=1).select(range(96))),
    "data-torch_dataset": Mode(Items(ROWS), make_model),
    "data-iterable_dataset": Mode(
        ROWS.to_iterable_dataset(),
        config={"max_steps": 6},
        base={"data": ROWS, "config": {"train_sampling_strategy": "sequential"}},
    ),
    "data-label_column_renamed_by_the_collator": Mode(
        ROWS.rename_column("label", "intent"),
        collator=collate_intent,
        config={"remove_unused_columns": False, "class_counts": np.bincount(ROWS["label"][:]).tolist()},
        base={"data": ROWS, "collator": collate, "config": {}},
    ),
}
modes = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def trained(trainer_class: type, mode: Mode, path, config: dict | None = None, **kwargs) -> tuple[Any, Gradients]:
    gradients = Gradients()
    given = TRAINING | mode.config | (config or {})
    if isinstance(mode.data, torch.utils.data.IterableDataset) and trainer_class is WeightedLossTrainer:
        given["class_counts"] = np.bincount(ROWS["label"][:]).tolist()
    config_class = WeightedLossConfig if trainer_class is WeightedLossTrainer else TrainingArguments
    trainer = trainer_class(
        model=mode.model(),
        args=config_class(str(path), **quiet_args(**given)),
        train_dataset=mode.data,
        data_collator=mode.collator,
        callbacks=[gradients],
        **kwargs,
    )
    trainer.train()
    return trainer, gradients


def base_trained(mode: Mode, path, **kwargs) -> tuple[Any, Gradients]:
    fields = {"data": mode.data, "model": mode.model, "collator": mode.collator, "config": mode.config} | mode.base
    return trained(Trainer, Mode(**fields), path, **kwargs)


def assert_same(ours: tuple[Any, Gradients], base: tuple[Any, Gradients], tolerance: float) -> None:
    assert losses(ours[0])
    assert losses(ours[0]) == pytest.approx(losses(base[0]), abs=tolerance)
    for one, other in zip(ours[1].steps, base[1].steps, strict=True):
        assert (one - other).abs().max() <= tolerance
    assert (parameters(ours[0].model) - parameters(base[0].model)).abs().max() <= tolerance


@modes
def test_at_ratio_one_it_is_the_base_trainer(tmp_path, mode):
    """Losses, gradients and parameters over an epoch; with accumulation, those of the whole step as one batch."""
    assert_same(
        trained(WeightedLossTrainer, mode, tmp_path, {"weight_ratio": 1.0}),
        base_trained(mode, tmp_path),
        mode.tolerance,
    )


def formula(class_weights: np.ndarray, smoothing: float) -> Callable[..., torch.Tensor]:
    """The weighted sum over the number of labels, in float64, as the base Trainer's compute_loss_func."""
    weights = torch.tensor(class_weights)

    def compute_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = (outputs["logits"] if isinstance(outputs, dict) else outputs[0]).double()
        if weights.ndim == 2:
            p, known = logits.sigmoid(), labels != -100
            item_losses = -(weights[:, 1] * labels * p.log() + weights[:, 0] * (1 - labels) * (1 - p).log())[known]
        else:
            logits, labels = logits[labels != -100], labels[labels != -100]
            log_p = logits.log_softmax(-1)
            own = log_p.gather(-1, labels[:, None])[:, 0]
            item_losses = -weights[labels] * ((1 - smoothing) * own + smoothing * log_p.mean(-1))
        return item_losses.sum() / (item_losses.numel() if num_items_in_batch is None else num_items_in_batch)

    return compute_loss


UNKNOWN = Mode(multi_label_data(unknown=True), multi_label_model, stack_labels)  # −100 is nothing to the base class


@pytest.mark.parametrize("mode", [*MODES.values(), UNKNOWN], ids=[*MODES, "unknown_labels"])
def test_at_other_ratios_it_is_the_formula_in_float64(tmp_path, mode):
    ours = trained(WeightedLossTrainer, mode, tmp_path, {"weight_ratio": 9.0})
    loss = formula(ours[0].class_weights.weights, ours[0].args.label_smoothing_factor)
    assert_same(ours, base_trained(mode, tmp_path, compute_loss_func=loss), 1e-6)


@pytest.mark.parametrize("average", [True, False])
def test_wrappers_data_parallel(tmp_path, average):
    """Without a second GPU torch's DataParallel calls the model on the whole batch, the logits of which it would gather."""
    results, rows = [], ROWS.select(range(81))  # the last step has one example
    for gpus in (1, 2):
        args = WeightedLossConfig(
            str(tmp_path),
            weight_ratio=9.0,
            average_tokens_across_devices=average,
            gradient_accumulation_steps=2,
            **quiet_args(**TRAINING | {"per_device_train_batch_size": 8 // gpus}),
        )
        args._n_gpu = gpus
        trainer = WeightedLossTrainer(
            model=plain_model(), args=args, train_dataset=rows, eval_dataset=rows, data_collator=collate
        )
        trainer.train()
        assert isinstance(trainer.model_wrapped, torch.nn.DataParallel) == (gpus == 2)
        results.append((losses(trainer), parameters(trainer.model), trainer.evaluate()["eval_loss"]))
    assert results[1][0] == pytest.approx(results[0][0], abs=1e-6)
    assert (results[1][1] - results[0][1]).abs().max() < 1e-6
    assert results[1][2] == pytest.approx(results[0][2], abs=1e-6)


def weighted_trainer(mode: Mode, path, **config) -> WeightedLossTrainer:
    return WeightedLossTrainer(
        model=mode.model(),
        args=WeightedLossConfig(str(path), **quiet_args(**TRAINING | mode.config | config)),
        train_dataset=mode.data,
        eval_dataset=mode.data,
        data_collator=mode.collator,
    )


def test_data_several_eval_sets(tmp_path):
    trainer = weighted_trainer(Mode(), tmp_path, weight_ratio=9.0)
    parts = {"first": ROWS.select(range(50)), "second": ROWS.select(range(50, 96))}
    metrics = trainer.evaluate(parts)
    for name, rows in parts.items():
        alone = trainer.evaluate(rows)
        for metric in ("loss", "plain_loss", "tp", "recall"):
            assert metrics[f"eval_{name}_{metric}"] == alone[f"eval_{metric}"]


@pytest.mark.parametrize("task", ["task-two_classes", "task-tokens", "task-several_labels"])
def test_evaluation_any_batch_size(tmp_path, task):
    """And it is the formula over the whole evaluation set, weighted and not."""
    metrics = []
    for size in (7, 96):
        trainer = weighted_trainer(MODES[task], tmp_path, weight_ratio=9.0, per_device_eval_batch_size=size)
        metrics.append(trainer.evaluate())
    batch = MODES[task].collator(list(MODES[task].data))
    labels = batch.pop("labels")
    with torch.no_grad():
        outputs = trainer.model.eval()(**batch)
    weights = trainer.class_weights.weights
    for name, class_weights in (("loss", weights), ("plain_loss", np.ones_like(weights))):
        expected = formula(class_weights, 0)(outputs, labels).item()
        assert [found[f"eval_{name}"] for found in metrics] == pytest.approx([expected] * 2, abs=1e-6)


@pytest.mark.parametrize("task", ["task-two_classes", "task-tokens", "task-several_labels"])
def test_evaluation_predict_returns_the_labels(tmp_path, task):
    trainer = weighted_trainer(MODES[task], tmp_path)
    labels = MODES[task].collator(list(MODES[task].data))["labels"].numpy()
    found = trainer.predict(MODES[task].data).label_ids
    assert np.array_equal(found[:, : labels.shape[1]] if labels.ndim == 2 else found, labels)


def test_saving_loads_without_weighloss(tmp_path):
    trainer = weighted_trainer(Mode(), tmp_path / "out", weight_ratio=9.0, save_strategy="epoch")
    trainer.train()
    trainer.save_model(tmp_path / "model")
    (checkpoint,) = (tmp_path / "out").glob("checkpoint-*")
    script = """
import sys; sys.modules["weighloss"] = None
from transformers import AutoModelForSequenceClassification as Auto
for folder in sys.argv[1:]:
    config = Auto.from_pretrained(folder).config
    print(config.class_counts, config.class_weights, config.weight_ratio, config.natural_ratio)
"""
    weights = trainer.class_weights
    expected = f"{weights.counts.tolist()} {weights.weights.tolist()} 9.0 {weights.natural_ratio}"
    words = [sys.executable, "-c", script, tmp_path / "model", checkpoint]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [expected] * 2


def test_saving_adapters(tmp_path):
    """PEFT's adapters have no config.json: the record has a file of its own, and they load as they did."""
    plain_model().save_pretrained(tmp_path / "whole")
    peft = pytest.importorskip("peft")

    def model() -> torch.nn.Module:
        whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
        return peft.get_peft_model(whole, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"]))

    trainer = weighted_trainer(Mode(model=model), tmp_path / "adapter", weight_ratio=9.0)
    trainer.train()
    trainer.save_model()
    record = json.loads((tmp_path / "adapter" / "class_weights.json").read_text())
    assert record["weight_ratio"] == 9.0
    assert record["class_counts"] == trainer.class_weights.counts.tolist()
    # By PEFT: AutoModelForSequenceClassification of transformers 5.0 leaves the head of an adapter as it is drawn.
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    loaded = peft.PeftModel.from_pretrained(whole, tmp_path / "adapter").eval()
    batch = collate(list(ROWS))
    del batch["labels"]
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, trainer.model.eval()(**batch).logits)
    again = weighted_trainer(Mode(None, model), tmp_path / "again")
    again.save_model()  # of adapters without training data the weighting is not known
    assert (tmp_path / "again" / "adapter_model.safetensors").exists()


def test_tools_optuna(tmp_path):
    optuna = pytest.importorskip("optuna")
    trainer = weighted_trainer(Mode(), tmp_path, max_steps=2)
    model = plain_model()
    trainer.model_init = lambda: copy.deepcopy(model)
    grid = {"weight_ratio": [0.5, 30.0], "learning_rate": [0.0, 0.1]}
    seen = []

    def objective(metrics: dict[str, float]) -> float:
        seen.append((trainer.model.config.weight_ratio, trainer.args.learning_rate, metrics["eval_loss"]))
        return metrics["eval_f1"]

    trainer.hyperparameter_search(
        hp_space=lambda trial: {name: trial.suggest_categorical(name, values) for name, values in grid.items()},
        compute_objective=objective,
        n_trials=4,
        direction="maximize",
        sampler=optuna.samplers.GridSampler(grid),
    )
    assert sorted(found[:2] for found in seen) == [
        (r, lr) for r in grid["weight_ratio"] for lr in grid["learning_rate"]
    ]
    for ratio, learning_rate, loss in seen:
        alone = weighted_trainer(Mode(), tmp_path, max_steps=2, weight_ratio=ratio, learning_rate=learning_rate)
        alone.train()
        assert alone.evaluate()["eval_loss"] == pytest.approx(loss, abs=1e-6)


def test_tools_tensorboard(tmp_path):
    """The ratio among the run's hyper-parameters, precision and recall among its scalars; of a sweep, leg by leg."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def logged(folder) -> Any:
        return accumulator.EventAccumulator(str(next(folder.rglob("events.out.*"))), {"tensors": 0}).Reload()

    config = {"report_to": "tensorboard", "eval_strategy": "epoch"}
    weighted_trainer(Mode(), tmp_path / "one", weight_ratio=9.0, **config).train()
    events = logged(tmp_path / "one")
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert '"weight_ratio": 9.0' in texts["args/text_summary"]
    assert '"natural_ratio"' in texts["model_config/text_summary"]
    assert {"eval/precision", "eval/recall", "eval/plain_loss", "train/loss"} <= set(events.Tags()["scalars"])


SWEPT = {
    "sweep-" + name.split("-")[1]: MODES[name]
    for name in (
        "task-several_classes",
        "task-tokens",
        "task-several_labels",
        "task-images",
        "task-audio",
        "precision-bf16_autocast",
        "wrappers-lora",
        "wrappers-torch_compile",
        "wrappers-gradient_checkpointing",
        "wrappers-label_names",
        "regularisers-label_smoothing",
        "regularisers-neftune",
        "data-torch_dataset",
    )
}


@pytest.mark.usefixtures("without_charts")
@pytest.mark.parametrize("mode", SWEPT.values(), ids=SWEPT)
def test_a_sweeps_legs_are_the_standalone_runs(tmp_path, mode):
    trainer = weighted_trainer(mode, tmp_path / "sweep")
    trainer.add_callback(RatioSweepCallback(ratios=[0.5, 9]))
    trainer.train()
    sweep = RatioSweep.load(tmp_path / "sweep")
    final = {}
    for point in sweep.points:
        alone = weighted_trainer(mode, tmp_path, weight_ratio=point.ratio)
        alone.train()
        metrics = alone.evaluate()
        for name in ("tp", "fp", "precision", "recall"):
            assert getattr(point, name) == metrics[f"eval_{name}"]
        assert (point.eval_loss, point.eval_plain_loss) == (metrics["eval_loss"], metrics["eval_plain_loss"])
        final[point.ratio] = parameters(alone.model)
        from_predictions = sweep.at_threshold(point, 0.0)
        assert from_predictions == OperatingPoint.at_argmax(point)
    assert torch.equal(parameters(trainer.model), final[sweep.kept_point.ratio])


@pytest.mark.usefixtures("without_charts")
def test_a_sweep_under_lora_leaves_the_chosen_adapter(tmp_path):
    trainer = weighted_trainer(MODES["wrappers-lora"], tmp_path, learning_rate=1e-2)
    trainer.add_callback(RatioSweepCallback(ratios=[1, 30], choose="cost fp=100 fn=1", threshold="argmax"))
    trainer.train()
    assert trainer.args.weight_ratio == 1
    alone = weighted_trainer(MODES["wrappers-lora"], tmp_path / "alone", learning_rate=1e-2, weight_ratio=1)
    alone.train()
    assert torch.equal(parameters(trainer.model), parameters(alone.model))
    assert json.loads((tmp_path / "class_weights.json").read_text())["weight_ratio"] == 1
    assert (tmp_path / "adapter_model.safetensors").exists()


def text_of(figure: Any) -> str:
    (axes,) = figure.axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    return "\n".join([figure.get_suptitle(), axes.get_xlabel(), figure.get_supxlabel().replace("\n", " "), *legend])


@pytest.mark.usefixtures("without_charts")
@pytest.mark.parametrize(
    ("task", "average", "ratio", "items", "sentence"),
    [
        ("several_classes", "macro average of 3 classes", "rarest over the commonest class", "96 evaluation examples;",
         "put into a class"),
        ("tokens", "macro average of 3 classes", "rarest over the commonest class", r"96 evaluation examples with [\d,]+ "
         "tokens;", "100 tokens put into a class"),
        ("several_labels", "micro average of 3 labels", "minority over majority of the most imbalanced label",
         r"96 evaluation examples with 288 labels \(\d+ positive\);", "100 labels that there are"),
    ],
)  # fmt: skip
def test_a_sweeps_charts_say_what_is_averaged(tmp_path, task, average, ratio, items, sentence):
    trainer = weighted_trainer(MODES[f"task-{task}"], tmp_path, learning_rate=0.5)
    trainer.add_callback(RatioSweepCallback(ratios=[1, 9]))
    trainer.train()
    sweep = RatioSweep.load(tmp_path)
    figures = plot_sweep(sweep)
    text = text_of(figures["precision_recall"])
    for figure in figures.values():
        box = figure._supxlabel.get_window_extent(FigureCanvasAgg(figure).get_renderer())
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.x1
    assert average in text
    assert ratio in text
    assert re.search(items, text)
    threshold = "the unweighted leg, over all thresholds"
    assert threshold in text_of(figures["precision_recall_plane"])
    assert sentence in sentence_of(sweep, 9)
