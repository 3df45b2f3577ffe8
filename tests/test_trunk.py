import json
from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    TrainerCallback,
    set_seed,
)

import weighloss.activations
from conftest import collate, make_data, make_model, parameters, quiet_args
from test_resume import Stop, finished, make_sweep, stopped
from test_scripts import spam_file  # noqa: F401 — a fixture
from test_sweep import EpochData
from test_where_it_works import MODES, Mode
from weighloss import (
    InvalidInputError,
    RatioSweep,
    RatioSweepCallback,
    WeightedLossConfig,
    WeightedLossTrainer,
    freeze_trunk,
    plot_sweep,
    report,
)
from weighloss.activations import ActivationCollator, cache_activations
from weighloss.preview import LEARNING_RATE_FACTOR
from weighloss.probe import find_at_first_position_only
from weighloss.trunk import Trunk

SMALL = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
TEXT = SMALL | {"vocab_size": 100, "pad_token_id": 0}
FAMILIES = {
    "bert": TEXT,
    "roberta": TEXT,
    "distilbert": {"dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 64, "vocab_size": 100},
    "deberta-v2": TEXT
    | {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
    },
    "electra": TEXT | {"embedding_size": 16},
    "modernbert": TEXT | {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "xlm-roberta": TEXT,
    "mpnet": TEXT,
    "vit": SMALL | {"image_size": 16, "patch_size": 8},
    "dinov2": SMALL | {"image_size": 16, "patch_size": 8},
}
IMAGES = ("vit", "dinov2")
NO_DROPOUT = ("modernbert", *IMAGES)  # by default


def build(family: str, auto: type | None = None) -> nn.Module:
    set_seed(0)
    auto = auto or (AutoModelForImageClassification if family in IMAGES else AutoModelForSequenceClassification)
    return auto.from_config(AutoConfig.for_model(family, num_labels=2, **FAMILIES[family]))


def batch_for(family: str) -> dict[str, torch.Tensor]:
    if family in IMAGES:
        return {"pixel_values": torch.randn(3, 3, 16, 16)}
    ids, mask = torch.randint(5, 90, (3, 9)), torch.ones(3, 9, dtype=torch.long)
    mask[1, 6:] = mask[2, 3:] = 0
    ids[mask == 0] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def logits(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.eval()(**batch).logits


@pytest.mark.parametrize("train_layers", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_cut_off_computes_from_activations_what_it_computed_whole(family, train_layers):
    model, batch = build(family), batch_for(family)
    whole, names = logits(model, batch), list(model.state_dict())
    trunk = Trunk(model, train_layers)
    collator = ActivationCollator(trunk)
    rows = collator.rows(batch, "cpu")
    trunk.cut()
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in build(family).parameters())
    assert (logits(model, collator(rows)) - whole).abs().max() <= 1e-5
    trunk.join(model)
    assert torch.equal(logits(model, batch), whole)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("family", FAMILIES)
def test_where_the_head_looks_at_the_first_position_only_that_one_is_computed(family):
    model, batch = build(family), batch_for(family)
    whole = logits(model, batch)
    trunk = Trunk(model)
    names = find_at_first_position_only(trunk, model, batch)
    collator = ActivationCollator(trunk)
    rows, flops, trained = collator(collator.rows(batch, "cpu")), [], []
    for given in ({}, names):
        trunk.cut(given)
        with FlopCounterMode(display=False) as counter:
            computed = logits(model, rows)
        flops.append(counter.get_total_flops())
        set_seed(1)
        trained.append(model.train()(**rows).logits)  # with dropout
        trunk.join(model)
        assert (computed - whole).abs().max() <= 1e-5
    assert (trained[1] - trained[0]).abs().max() <= 1e-5
    assert (trained[0] - whole).abs().max() > 1e-3 or family in NO_DROPOUT
    if family == "dinov2":  # which takes the mean of the others too
        assert names == {}
    else:
        assert flops[1] < 0.6 * flops[0]
        assert any(names.values())  # between two of them no dropout draws: what is there may be short
    assert torch.equal(logits(model, batch), whole)
    if "input_ids" in batch:  # from texts of one token nothing can be told
        assert find_at_first_position_only(trunk, model, {key: value[:, :1] for key, value in batch.items()}) == {}


def test_a_head_that_is_all_zero_hides_no_position():
    model, batch = build("bert"), batch_for("bert")
    nn.init.zeros_(model.classifier.weight)
    assert find_at_first_position_only(Trunk(model), model, batch) == {}


def test_a_model_that_pools_by_its_padding_is_refused_however_few_rows_have_any(tmp_path, eval_data):
    config = AutoConfig.for_model("llama", **TEXT, num_labels=2, num_key_value_heads=2)
    model = AutoModelForSequenceClassification.from_config(config)
    rows = [{"input_ids": [1] + [5] * 8, "attention_mask": [1] * 9, "label": i % 2} for i in range(60)]
    rows[20] = {"input_ids": [1, 5, 5], "attention_mask": [1] * 3, "label": 0}
    trainer = WeightedLossTrainer(
        model=model, args=WeightedLossConfig(str(tmp_path), **quiet_args()), train_dataset=Dataset.from_list(rows),
        eval_dataset=eval_data, data_collator=collate, callbacks=[RatioSweepCallback(ratios=[1], preview=True)],
    )  # fmt: skip
    with pytest.raises(InvalidInputError, match="LlamaForSequenceClassification cannot be cut off"):
        trainer.train()


def test_a_model_of_half_precision_is_cut_too():
    model, batch = build("bert").bfloat16(), batch_for("bert")
    whole = logits(model, batch)
    trunk = Trunk(model)
    assert find_at_first_position_only(trunk, model, batch)
    collator = ActivationCollator(trunk, "bfloat16")
    rows = collator(collator.rows(batch, "cpu"))
    trunk.cut()
    assert torch.equal(logits(model, rows), whole)


@pytest.mark.parametrize("column", ["target", "label"])
def test_class_names_go_along_with_the_activations(tmp_path, train_data, column):
    data = train_data.rename_column("label", column) if column != "label" else train_data
    rename = {"target": "target", "label": "labels"}[column]

    def collate_renamed(rows):
        batch = collate([{**row, "label": row[column]} for row in rows])
        return {rename if name == "labels" else name: value for name, value in batch.items()}

    collator = ActivationCollator(Trunk(make_model()), label_names=[rename])
    cached = cache_activations(data, collate_renamed, collator, tmp_path / "x.arrow", progress=False)
    assert cached.features[rename].names == ["ham", "spam"]


def test_boxes_of_the_tokens_are_kept(tmp_path):
    config = AutoConfig.for_model("layoutlm", **TEXT, num_labels=2)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    rows = [{"input_ids": [1, 5, 7, 9][:n], "attention_mask": [1] * n, "bbox": [[1, 2, 3, 4]] * n} for n in (4, 2, 3)]

    def collate_boxes(rows):
        boxes = [torch.tensor(row["bbox"]) for row in rows]
        batch = collate([{**row, "label": 0} for row in rows])
        del batch["labels"]
        return batch | {"bbox": nn.utils.rnn.pad_sequence(boxes, batch_first=True)}

    whole = logits(model, collate_boxes(rows))
    trunk = Trunk(model)
    collator = ActivationCollator(trunk)
    cached = cache_activations(Dataset.from_list(rows), collate_boxes, collator, tmp_path / "x.arrow", progress=False)
    trunk.cut()
    assert (logits(model, collator(cached.__getitems__([0, 1, 2]))) - whole).abs().max() <= 1e-5


def test_tokens_are_classified_from_activations_too():
    model, batch = build("bert", AutoModelForTokenClassification), batch_for("bert")
    whole = logits(model, batch)
    trunk = Trunk(model)
    assert find_at_first_position_only(trunk, model, batch) == {}
    wider = {name: nn.functional.pad(value, (0, 7)) for name, value in batch.items()}  # as pad_to_multiple_of does
    assert find_at_first_position_only(trunk, model, wider) == {}
    collator = ActivationCollator(trunk)
    rows = collator.rows(batch | {"labels": torch.arange(27).reshape(3, 9)}, "cpu")
    trunk.cut()
    made = collator(rows[2:])
    assert made.pop("labels").tolist() == [[18, 19, 20]]
    assert (logits(model, made) - whole[2:, :3]).abs().max() <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_frozen_trunk_leaves_the_last_layers_and_the_head_to_train_and_has_no_dropout(family):
    model = freeze_trunk(build(family), train_layers=2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    frozen = {name for name, _ in model.named_parameters()} - trained
    layer = ".layer." if any(".layer." in name for name in frozen) else ".layers."
    assert {name.split(layer)[1].split(".")[0] for name in frozen if layer in name} == {"0", "1"}
    assert {name.split(layer)[1].split(".")[0] for name in trained if layer in name} == {"2", "3"}
    assert any("embeddings" in name for name in frozen)
    assert not any("embeddings" in name for name in trained)
    assert any("classifier" in name for name in trained)
    batch = batch_for(family)
    model.train()
    trunk = Trunk(model, 2)
    assert torch.equal(trunk.activations(batch), trunk.activations(batch))
    assert model.training


@pytest.mark.parametrize(
    ("model", "layers", "sentence"),
    [
        (lambda: AutoModelForSequenceClassification.from_config(AutoConfig.for_model("albert", **TEXT, num_labels=2)), 1,
         "AlbertForSequenceClassification has no lower layers to freeze: all its layers share one set of weights"),
        (lambda: nn.Linear(2, 2), 1, "Linear is not built of embeddings, one list of layers and a head"),
        (lambda: build("bert"), 4, "train_layers=4 leaves no trunk: .* has 4 layers, write a number from 1 to 3"),
        (lambda: build("bert"), 0, "train_layers=0 leaves no trunk"),
        (MODES["wrappers-lora"].model, 1, "is not built of embeddings"),
    ],
    ids=["albert", "unknown", "all_layers", "no_layers", "lora"],
)  # fmt: skip
def test_a_model_without_a_trunk_is_refused_by_name(model, layers, sentence):
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        freeze_trunk(model(), layers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "bytes_each", "error"), [("float32", 4, 1e-5), ("float16", 2, 1e-3), ("bfloat16", 2, 2e-2)]
)
def test_activations_are_kept_in_half_the_room_when_asked(tmp_path, train_data, dtype, bytes_each, error, caplog):
    model = make_model().eval()
    trunk = Trunk(model)
    collator = ActivationCollator(trunk, dtype)
    cached = cache_activations(train_data, collate, collator, tmp_path / "x.arrow", batch_size=32, progress=False)
    positions = sum(map(len, train_data["input_ids"]))
    size = (tmp_path / "x.arrow").stat().st_size
    assert positions * 32 * bytes_each < size < 1.5 * positions * 32 * bytes_each
    assert "The activations of 192 rows take about" in caplog.text
    assert cached.features["labels"].names == ["ham", "spam"]
    batch = collate([train_data[i] for i in (5, 77)])
    labels = batch.pop("labels")
    whole = logits(model, batch)
    trunk.cut()
    made = collator([cached[i] for i in (5, 77)])
    assert torch.equal(made.pop("labels"), labels)
    assert (logits(model, made) - whole).abs().max() <= error


def test_a_disk_without_the_room_is_refused_before_anything_is_computed(tmp_path, train_data, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(weighloss.activations.shutil, "disk_usage", lambda _: Usage)
    collator = ActivationCollator(Trunk(make_model()))
    with pytest.raises(InvalidInputError, match=r"take about 0.0\d+ GB, but .* has room for 1e-06 GB: make room"):
        cache_activations(train_data, collate, collator, tmp_path / "x.arrow")
    assert not (tmp_path / "x.arrow").exists()
    with pytest.raises(InvalidInputError, match="dtype='int8' is none for activations"):
        ActivationCollator(Trunk(make_model()), "int8")


class Ends(TrainerCallback):
    def __init__(self):
        self.weights = []

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.weights.append({name: p.detach().clone() for name, p in model.named_parameters()})


@pytest.mark.parametrize(
    ("mode", "config"),
    [
        ("task-two_classes", {}),
        ("task-two_classes", {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 7}),
        ("task-two_classes", {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8, "data_seed": 3}),
        ("task-tokens", {}),
        ("task-several_labels", {}),
        ("task-images", {}),
        ("torch_dataset", {}),
        ("wrappers-label_names", {}),
        ("deberta-v2", {}),
        ("mpnet", {}),
        ("distilbert", {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
        ("modernbert", {}),
    ],
    ids=[
        "text",
        "group_by_length",
        "accumulation",
        "tokens",
        "several_labels",
        "images",
        "torch_dataset",
        "label_names",
        "relative_embeddings",
        "relative_attention_bias",
        "gradient_checkpointing",
        "no_dropout",
    ],
)
def test_a_preview_leg_is_the_leg_with_the_same_frozen_layers_computed_in_full(tmp_path, mode, config):
    if mode in FAMILIES:
        mode = Mode(make_data(96, 0), model=partial(build, mode))
    else:
        mode = Mode(EpochData(make_data(96, 0))) if mode == "torch_dataset" else MODES[mode]
    training = {"learning_rate": 1e-3, "per_device_train_batch_size": 16} | mode.config | config

    def trained(path, model, batch_size, lr, **kwargs):
        own = {"learning_rate": lr, "num_train_epochs": 1, "per_device_train_batch_size": batch_size}
        trainer = WeightedLossTrainer(
            model=model,
            args=WeightedLossConfig(str(path), **quiet_args(**training | own)),
            train_dataset=mode.data,
            eval_dataset=mode.data,
            data_collator=mode.collator,
            **kwargs,
        )
        if "callbacks" not in kwargs:
            trainer.args.weight_ratio = 9.0
        trainer.train()
        return trainer

    with_dropout = mode.model()
    callback = RatioSweepCallback(ratios=[3, 9], preview=True)
    size = training["per_device_train_batch_size"]
    swept = trained(tmp_path / "swept", with_dropout, size, 1e-3, callbacks=[callback])
    alone = trained(tmp_path / "alone", freeze_trunk(mode.model()), min(size, 8), 1e-3 * LEARNING_RATE_FACTOR)
    assert swept.model is with_dropout
    assert list(swept.model.state_dict()) == list(alone.model.state_dict())
    # The bias of an attention's keys has no gradient but rounding, of which Adam makes steps.
    expected = dict(alone.model.named_parameters())
    for name, parameter in swept.model.named_parameters():
        assert (parameter - expected[name]).abs().max() < (
            1e-3 if name.endswith(("key.bias", "k_proj.bias")) else 1e-5
        )
    ours, theirs = swept.predict(mode.data).predictions, alone.predict(mode.data).predictions
    assert np.abs(ours - theirs).max() < 1e-5
    assert callback.sweep.preview == 1
    assert (swept.args.learning_rate, swept.args.per_device_train_batch_size) == (1e-3, size)
    assert swept.train_dataset is mode.data
    assert swept.data_collator is mode.collator
    assert not list((tmp_path / "swept").glob("_activations*"))


def test_dropout_above_the_cut_is_that_of_the_leg_computed_in_full(tmp_path, train_data, eval_data):
    callback = RatioSweepCallback(ratios=[9], preview=True)
    trainers = []
    for model, callbacks, size, lr in (
        (make_model(dropout=0.1), [callback], 16, 1e-3),
        (freeze_trunk(make_model(dropout=0.1)), [], 8, 1e-3 * LEARNING_RATE_FACTOR),
    ):
        config = {"learning_rate": lr, "num_train_epochs": 1, "per_device_train_batch_size": size}
        trainer = WeightedLossTrainer(
            model=model,
            args=WeightedLossConfig(str(tmp_path), **quiet_args(**config)),
            train_dataset=train_data,
            eval_dataset=eval_data,
            data_collator=collate,
            callbacks=callbacks,
        )
        if not callbacks:
            trainer.args.weight_ratio = 9.0
        trainer.train()
        trainers.append(trainer)
    assert (parameters(trainers[0].model) - parameters(trainers[1].model)).abs().max() < 1e-5


PREVIEW = {"sweep": {"preview": True, "ratios": [0.5, 4, 30]}}


@pytest.mark.parametrize("own", [{}, {"model_init": lambda: make_model(seed=5)}], ids=["model", "model_init"])
def test_the_trainer_holds_the_whole_model_of_the_best_preview(tmp_path, train_data, eval_data, own):
    trainer = make_sweep(tmp_path, train_data, eval_data, **PREVIEW, **own)
    trainer.train()
    sweep = RatioSweep.load(tmp_path)
    assert sweep.preview == 1
    kept = sweep.predictions(sweep.kept_point)[0]
    assert np.abs(trainer.predict(eval_data).predictions - kept).max() < 1e-5
    assert len(list(trainer.model.parameters())) == len(list(make_model().parameters()))
    assert "of a preview: only the last layer and the head fine-tuned" in sweep.kept_because
    trainer.save_model()
    assert json.loads((tmp_path / "config.json").read_text())["num_hidden_layers"] == 2
    trainer.create_model_card()
    assert "of a preview" in (tmp_path / "README.md").read_text()
    assert report.summary(sweep).startswith("Preview. Only the last layer")
    assert "; a preview, only the last layer" in plot_sweep(sweep)["precision_recall"].get_suptitle()


def test_an_interrupted_preview_leaves_a_whole_model_and_goes_on(tmp_path, train_data, eval_data):
    whole = finished(tmp_path / "whole", train_data, eval_data, **PREVIEW)
    trainer = make_sweep(tmp_path / "cut", train_data, eval_data, Stop(30), **PREVIEW)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert torch.equal(parameters(trainer.model), parameters(make_model()))
    assert trainer.train_dataset is train_data
    stop = Stop()
    assert finished(tmp_path / "cut", train_data, eval_data, stop, **PREVIEW) == whole
    assert stop.steps[0] == 25
    stop = Stop()
    assert finished(tmp_path / "cut", train_data, eval_data, stop, **PREVIEW) == whole
    assert not stop.steps
    with pytest.raises(InvalidInputError, match="layers that are trained: None here, 1 there"):
        stopped(tmp_path / "cut", train_data, eval_data, 2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_init": lambda: make_model(seed=torch.initial_seed())}, "draws the lower layers anew with every seed"),
        ({"config": {"neftune_noise_alpha": 5.0}}, "neftune_noise_alpha"),
        ({"sweep": {"preview": 2}}, "train_layers=2 leaves no trunk"),
        ({"optimizers": (torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), None)}, "leave optimizers= out"),
    ],
    ids=["model_init", "neftune", "layers", "optimizer"],
)
def test_what_cannot_be_previewed_is_refused_before_any_training(tmp_path, train_data, eval_data, change, sentence):
    stop = Stop()
    given = {"sweep": {"preview": True, "seeds": [1, 2]} | change.pop("sweep", {})} | change
    with pytest.raises(InvalidInputError, match=sentence):
        make_sweep(tmp_path, train_data, eval_data, stop, **given).train()
    assert not stop.steps


def test_a_model_that_looks_at_its_inputs_again_is_refused_by_name(tmp_path, train_data, eval_data):
    class Peeks(type(make_model())):
        def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, **kwargs):
            outputs = super().forward(
                input_ids=input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
            )
            outputs.logits = outputs.logits + (0 if input_ids is None else input_ids[:, :1])
            return outputs

    model = Peeks(make_model().config)
    trainer = WeightedLossTrainer(
        model=model, args=WeightedLossConfig(str(tmp_path), **quiet_args()), train_dataset=train_data,
        eval_dataset=eval_data, data_collator=collate, callbacks=[RatioSweepCallback(ratios=[1], preview=True)],
    )  # fmt: skip
    before = list(model.state_dict())
    with pytest.raises(InvalidInputError, match=r"Peeks cannot be cut off .* \(its logits differ by"):
        trainer.train()
    assert list(model.state_dict()) == before


def test_the_script_previews_and_refines(run_script, small_model, spam_file, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    printed = run_script(
        "sweep.py", "--model_name_or_path", small_model, "--train_file", spam_file, "--positive_label", "spam",
        "--num_ratios", 5, "--learning_rate", 1e-3, "--preview", True, "--refine", 2, "--output_dir", out,
    )  # fmt: skip
    preview, refined = RatioSweep.load(out / "preview"), RatioSweep.load(out)
    assert (preview.preview, refined.preview) == (1, None)
    assert len(preview.points) == 6
    assert refined.ratios == preview.ratios_around("f1", 2)
    assert len(refined.points) == 2
    assert refined.previewed() == preview
    assert "Preview. Only the last layer and the head fine-tuned" in printed
    labels = [text.get_text() for text in plot_sweep(refined)["precision_recall"].axes[0].get_legend().get_texts()]
    assert "recall, preview" in labels
    assert "preview" not in (out / "README.md").read_text()
    assert (out / "model.safetensors").exists()
    assert "write --preview True too" in run_script("sweep.py", "--refine", 2, "--output_dir", tmp_path / "no")
    alone = tmp_path / "alone"
    run_script(
        "sweep.py", "--model_name_or_path", small_model, "--train_file", spam_file, "--positive_label", "spam",
        "--ratios", 1, 9, "--preview", True, "--output_dir", alone,
    )  # fmt: skip
    assert "of a preview" in (alone / "README.md").read_text()


def test_the_ratios_around_the_chosen_one_are_the_nearest_on_the_axis():
    from test_record import ARTICLE, make_sweep

    sweep = make_sweep(ARTICLE)
    assert sweep.choose("recall>=0.9").point.ratio == 70
    assert sweep.ratios_around("recall>=0.9", 1) == [70]
    assert sweep.ratios_around("recall>=0.9", 3) == [7, 70, 700]
    assert sweep.ratios_around(70.0, 3) == [7, 70, 700]
    assert sweep.ratios_around("recall>=0.9", 99) == [point.ratio for point in ARTICLE]


def test_rows_of_left_padded_batches_keep_their_padding():
    model = build("bert")
    batch = batch_for("bert")
    batch = {name: value.flip(1) for name, value in batch.items()}
    whole = logits(model, batch)
    trunk = Trunk(model)
    collator = ActivationCollator(trunk)
    rows = collator.rows(batch, "cpu")
    trunk.cut()
    assert (logits(model, collator(rows)) - whole).abs().max() <= 1e-5
