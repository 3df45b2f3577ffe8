import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset, DatasetDict, Value
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import GridSampler
from test_losses import reference
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from conftest import collate, losses, make_data, make_model, parameters, quiet_args
from weighloss import ClassWeights, InvalidInputError, WeightedLossConfig, WeightedLossTrainer, count_labels
from weighloss.training.checks import check_trainer


def make_trainer(trainer_class, path, data, model=None, config=None, **kwargs):
    """A trainer whose micro-batch × accumulation is 16, without what makes two trainings differ for other reasons."""
    given = {"optim": "sgd", "learning_rate": 0.1, "num_train_epochs": 1, "max_grad_norm": 0.0, "logging_steps": 1}
    given |= {"per_device_train_batch_size": 16, "per_device_eval_batch_size": 16} | (config or {})
    config_class = WeightedLossConfig if trainer_class is WeightedLossTrainer else TrainingArguments
    return trainer_class(
        model=model or make_model(dropout=0.0),
        args=config_class(str(path), **quiet_args(**given)),
        train_dataset=data,
        data_collator=collate,
        **kwargs,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_at_ratio_one_the_eval_loss_is_the_base_trainers(tmp_path, train_data, eval_data, smoothing):
    found = []
    for trainer_class, config in ((Trainer, {}), (WeightedLossTrainer, {"weight_ratio": 1.0})):
        config = config | {"label_smoothing_factor": smoothing}
        trainer = make_trainer(trainer_class, tmp_path, train_data, config=config, eval_dataset=eval_data)
        found.append(trainer.evaluate()["eval_loss"])
    assert found[1] == pytest.approx(found[0], abs=1e-6)


@pytest.mark.parametrize(("micro_batch", "accumulation"), [(1, 16), (4, 4), (5, 3)])
def test_cutting_a_step_into_micro_batches_changes_nothing(tmp_path, train_data, micro_batch, accumulation):
    """Against the base Trainer on whole steps: with accumulation it multiplies the loss by the number of micro-batches."""
    rows = train_data.select(range(181))  # the last step is incomplete
    runs = {}
    for trainer_class, config in (
        (Trainer, {"per_device_train_batch_size": micro_batch * accumulation}),
        (
            WeightedLossTrainer,
            {
                "per_device_train_batch_size": micro_batch,
                "gradient_accumulation_steps": accumulation,
                "weight_ratio": 1.0,
            },
        ),
    ):
        trainer = make_trainer(trainer_class, tmp_path, rows, config=config)
        trainer.train()
        runs[trainer_class] = losses(trainer), parameters(trainer.model)
    assert runs[WeightedLossTrainer][0] == pytest.approx(runs[Trainer][0], abs=1e-6)
    assert (runs[Trainer][1] - runs[WeightedLossTrainer][1]).abs().max() < 1e-6


@pytest.mark.parametrize("ratio", [0.05, 60.0])
def test_cutting_a_weighted_step_into_micro_batches_changes_nothing(tmp_path, train_data, ratio):
    results = []
    for micro_batch, accumulation in ((16, 1), (4, 4), (1, 16)):
        config = {
            "per_device_train_batch_size": micro_batch,
            "gradient_accumulation_steps": accumulation,
            "weight_ratio": ratio,
        }
        trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config=config)
        trainer.train()
        results.append(parameters(trainer.model))
    unweighted = make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"weight_ratio": 1.0})
    unweighted.train()
    assert (results[0] - parameters(unweighted.model)).abs().max() > 1e-3
    assert max((result - results[0]).abs().max() for result in results[1:]) < 1e-6


def test_the_weighted_loss_of_training_and_evaluation_is_the_formula_on_the_models_logits(
    tmp_path, train_data, eval_data
):
    trainer = make_trainer(
        WeightedLossTrainer,
        tmp_path,
        train_data,
        config={"weight_ratio": 9.0, "learning_rate": 0.0},
        eval_dataset=eval_data,
    )
    trainer.train()
    counts = np.bincount(train_data["label"][:])
    weights = np.array([1, 9.0]) * counts.sum() / (counts @ [1, 9.0])

    def logits(rows):
        batch = collate(list(rows))
        labels = batch.pop("labels")
        with torch.no_grad():
            return trainer.model.eval()(**batch).logits, labels

    assert np.mean(losses(trainer)) == pytest.approx(reference(*logits(train_data), weights), abs=1e-6)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(reference(*logits(eval_data), weights), abs=1e-6)
    assert metrics["eval_plain_loss"] == pytest.approx(reference(*logits(eval_data), [1, 1]), abs=1e-6)


@given(scale=st.floats(1e-6, 1e6))
@settings(max_examples=3, deadline=None)
def test_scaling_explicit_weights_changes_no_parameter(tmp_path_factory, train_data, scale):
    results = []
    for factor in (1, scale):
        config = {"class_weights": [1.0 * factor, 7.0 * factor]}
        trainer = make_trainer(WeightedLossTrainer, tmp_path_factory.mktemp("out"), train_data, config=config)
        trainer.train()
        results.append(parameters(trainer.model))
    assert (results[0] - results[1]).abs().max() < 1e-6


def test_plain_training_arguments_train_at_the_natural_ratio(tmp_path, train_data, eval_data):
    trainer = WeightedLossTrainer(
        model=make_model(),
        args=TrainingArguments(str(tmp_path), **quiet_args()),
        train_dataset=train_data,
        eval_dataset=eval_data,
    )
    natural = ClassWeights.from_dataset(train_data)
    assert trainer.class_weights.ratio == natural.natural_ratio
    assert trainer.class_weights.weights.tolist() == natural.weights.tolist()


def test_the_ratio_is_read_from_the_arguments_when_it_is_used(tmp_path, train_data, eval_data):
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"weight_ratio": 1.0})
    unweighted = trainer.evaluate(eval_data)
    trainer.args.weight_ratio = 30.0
    weighted = trainer.evaluate(eval_data)
    assert weighted["eval_loss"] != pytest.approx(unweighted["eval_loss"], abs=1e-3)
    assert weighted["eval_plain_loss"] == unweighted["eval_plain_loss"]


def test_without_compute_metrics_precision_recall_and_counts_of_the_positive_label_are_reported(
    tmp_path, train_data, eval_data
):
    config = {"positive_label": "ham"}
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config=config, eval_dataset=eval_data)
    metrics = trainer.evaluate()
    labels = np.array(eval_data["label"][:])
    predicted = trainer.predict(eval_data).predictions.argmax(-1)
    assert metrics["eval_tp"] == ((predicted == 0) & (labels == 0)).sum()
    assert metrics["eval_fn"] == ((predicted != 0) & (labels == 0)).sum()
    assert metrics["eval_tp"] + metrics["eval_fp"] + metrics["eval_fn"] + metrics["eval_tn"] == len(labels)
    assert metrics["eval_accuracy"] == (predicted == labels).mean()


def test_unlabelled_data_are_predicted(tmp_path, train_data, eval_data):
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data)
    trainer.data_collator = lambda rows: {
        k: v for k, v in collate([r | {"label": 0} for r in rows]).items() if k != "labels"
    }
    prediction = trainer.predict(eval_data.remove_columns("label"))
    assert prediction.predictions.shape == (100, 2)
    assert prediction.label_ids is None


def test_the_model_does_not_compute_a_loss_of_its_own(tmp_path, train_data):
    seen = []

    class Model(BertForSequenceClassification):
        def forward(self, input_ids=None, attention_mask=None, labels=None):  # and it takes no **kwargs
            seen.append(labels)
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)

    model = Model(make_model().config)
    config = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "weight_ratio": 5.0}
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, model=model, config=config)
    trainer.train()
    assert len(seen) == 48
    assert all(labels is None for labels in seen)


def test_a_model_made_by_model_init_says_how_it_was_weighted(tmp_path, train_data):
    args = WeightedLossConfig(str(tmp_path), weight_ratio=5.0, **quiet_args(max_steps=1))
    trainer = WeightedLossTrainer(
        model_init=lambda: make_model(), args=args, train_dataset=train_data, data_collator=collate
    )
    trainer.train()
    trainer.save_model()
    assert json.loads((tmp_path / "config.json").read_text())["weight_ratio"] == 5.0


def test_evaluation_in_batches_that_are_not_joined_has_the_same_metrics(tmp_path, train_data, eval_data):
    metrics = []
    for joined in (True, False):
        config = {"eval_do_concat_batches": joined, "weight_ratio": 9.0}
        metrics.append(make_trainer(WeightedLossTrainer, tmp_path, train_data, config=config).evaluate(eval_data))
    for name in ("eval_tp", "eval_tn", "eval_loss", "eval_plain_loss"):
        assert metrics[0][name] == pytest.approx(metrics[1][name], abs=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        {
            "preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1),
            "compute_metrics": lambda p: {"all": 1},
        },
        {"config": {"prediction_loss_only": True}},
        {"config": {"batch_eval_metrics": True}, "compute_metrics": lambda p, compute_result: {"all": 1}},
    ],
    ids=["preprocessed", "loss_only", "batch_by_batch"],
)
def test_the_eval_losses_do_not_need_the_predictions(tmp_path, train_data, eval_data, given):
    config = {"weight_ratio": 9.0, "per_device_eval_batch_size": 7}
    plain = make_trainer(WeightedLossTrainer, tmp_path, train_data, config=config).evaluate(eval_data)
    config |= given.pop("config", {})
    found = make_trainer(WeightedLossTrainer, tmp_path, train_data, config=config, **given).evaluate(eval_data)
    for name in ("eval_loss", "eval_plain_loss"):
        assert found[name] == pytest.approx(plain[name], abs=1e-9)


def test_logits_are_found_wherever_the_model_puts_them(tmp_path, train_data, eval_data):
    class Model(BertForSequenceClassification):
        def forward(self, input_ids=None, attention_mask=None):
            outputs = super().forward(input_ids=input_ids, attention_mask=attention_mask)
            return {"aux": outputs.logits.flip(-1), "logits": outputs.logits}

    model = Model(make_model().config)
    model.load_state_dict(make_model().state_dict())
    found = make_trainer(WeightedLossTrainer, tmp_path, train_data, model).evaluate(eval_data)
    plain = make_trainer(WeightedLossTrainer, tmp_path, train_data).evaluate(eval_data)
    assert [found[f"eval_{name}"] for name in ("loss", "tp", "fp")] == [
        plain[f"eval_{name}"] for name in ("loss", "tp", "fp")
    ]


def test_names_are_taken_by_id_in_whatever_order_the_config_has_them(tmp_path, train_data):
    model = make_model(id2label={1: "spam", 0: "ham"}, label2id={"spam": 1, "ham": 0})
    data = train_data.cast_column("label", Value("int64"))
    config = {"class_weights": {"ham": 1, "spam": 7}}
    trainer = make_trainer(WeightedLossTrainer, tmp_path, data, model, config)
    assert trainer.class_weights.ratio == pytest.approx(7)


def test_a_model_that_has_no_names_for_its_classes_gets_those_of_the_data(tmp_path, train_data):
    for names, expected in (({}, ["ham", "spam"]), ({"id2label": {0: "no", 1: "yes"}}, ["no", "yes"])):
        model = make_model(**names)
        make_trainer(WeightedLossTrainer, tmp_path, train_data, model).save_model()
        config = BertForSequenceClassification.from_pretrained(tmp_path).config
        assert config.id2label == dict(enumerate(expected))
    unnamed = make_trainer(WeightedLossTrainer, tmp_path, train_data.cast_column("label", Value("int64")))
    assert unnamed.model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_the_card_of_a_loaded_model_does_not_call_its_ratio_natural(tmp_path, train_data):
    make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"weight_ratio": 60.0}).save_model()
    loaded = BertForSequenceClassification.from_pretrained(tmp_path)
    make_trainer(WeightedLossTrainer, tmp_path / "again", None, loaded).create_model_card()
    card = (tmp_path / "again" / "README.md").read_text()
    assert "the ratio that the loaded model was trained with" in card
    assert "60" in card


def test_counts_that_were_counted_by_count_labels_can_be_logged(tmp_path, train_data):
    args = WeightedLossConfig(str(tmp_path), class_counts=count_labels(train_data))
    assert json.loads(args.to_json_string())["class_counts"] == np.bincount(train_data["label"][:]).tolist()


def test_labels_that_label_names_names_are_counted_in_any_dataset(tmp_path, train_data):
    rows = [row | {"target": row["label"], "label": 0} for row in train_data]
    config = {"label_names": ["target"], "remove_unused_columns": False}
    for data in (rows, Dataset.from_list(rows)):
        trainer = make_trainer(WeightedLossTrainer, tmp_path, data, config=config)
        assert trainer.class_weights.counts.tolist() == np.bincount(train_data["label"][:]).tolist()


def test_counts_that_are_given_anew_are_used(tmp_path, train_data):
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"class_counts": [30, 10]})
    trainer.args.class_counts = [90, 10]
    assert trainer.class_weights.natural_ratio == 9


def test_a_loaded_model_is_evaluated_with_the_weights_and_positive_label_it_was_trained_with(
    tmp_path, train_data, eval_data
):
    config = {"weight_ratio": 5.0, "positive_label": "ham"}
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config=config, eval_dataset=eval_data)
    trainer.save_model()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    again = make_trainer(WeightedLossTrainer, tmp_path, None, loaded, eval_dataset=eval_data).evaluate()
    expected = trainer.evaluate()
    for name in ("eval_loss", "eval_plain_loss", "eval_tp", "eval_recall"):
        assert again[name] == pytest.approx(expected[name], abs=1e-6)


def test_several_classes_are_weighed_and_reported_by_macro_averages(tmp_path):
    data = make_data(300, seed=5, share=0.3, names=("a", "b", "c"))
    trainer = make_trainer(WeightedLossTrainer, tmp_path, data, make_model(num_labels=3), {"weight_ratio": 4.0})
    counts = np.bincount(data["label"][:])
    weights = trainer.class_weights.weights
    assert weights[counts.argmin()] / weights[counts.argmax()] == pytest.approx(4)
    metrics = trainer.evaluate(data.select(range(50)))
    assert 0 <= metrics["eval_recall"] <= 1


def test_a_model_of_a_sweep_that_is_trained_anew_forgets_for_what_its_ratio_was_chosen(tmp_path, train_data):
    model = make_model()
    model.config.update({"requirement": "recall>=0.9", "weight_ratio": 30.0})
    make_trainer(WeightedLossTrainer, tmp_path, train_data, model=model).save_model()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "requirement" not in saved
    assert saved["weight_ratio"] != 30


def test_weights_and_counts_are_understood_by_name_by_id_in_order_and_as_json(tmp_path, train_data):
    forms = [{"ham": 1, "spam": 3}, {"0": 1, "1": 3}, [1, 3], '{"spam": 3, "ham": 1}', "[1, 3]"]
    for form in forms:
        trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"class_weights": form})
        assert trainer.class_weights.ratio == pytest.approx(3)
        trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"class_counts": form})
        assert trainer.class_weights.counts.tolist() == [1, 3]


def test_counts_are_those_of_the_models_classes_where_the_data_names_more(tmp_path):
    data = make_data(60, 0, names=("ham", "spam", "unknown")).filter(lambda row: row["label"] < 2)
    trainer = make_trainer(WeightedLossTrainer, tmp_path, data, make_model(), {"class_counts": [90, 10]})
    assert trainer.class_weights.weights.tolist() == pytest.approx([100 / 180, 5])
    with pytest.raises(InvalidInputError, match="one value for each of the 2 classes"):
        make_trainer(WeightedLossTrainer, tmp_path, data, make_model(), {"class_counts": [90, 10, 5]})


def test_an_iterable_dataset_trains_with_explicit_counts(tmp_path, train_data):
    config = {"class_counts": [150, 42], "max_steps": 3}
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data.to_iterable_dataset(), config=config)
    trainer.train()
    assert trainer.model.config.natural_ratio == 150 / 42


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"config": {"weight_ratio": 0.0}}, "positive finite number"),
        ({"config": {"weight_ratio": float("nan")}}, "positive finite number"),
        (
            {"config": {"positive_label": "spma"}},
            "positive_label must be a class id or one of the class names 'ham', 'spam', got 'spma'",
        ),
        ({"config": {"class_weights": {"ham": 1}}}, "one value for each of the 2 classes"),
        ({"config": {"class_weights": "{ham: 1}"}}, "not JSON"),
        (
            {"config": {"class_weights": [1, 2], "weight_ratio": 2.0}},
            "weight_ratio must be None where class_weights are given",
        ),
        (
            {"model": {"num_labels": 1}},
            "num_labels=1, which means regression: load it with num_labels=2 or more",
        ),
        (
            {"model": {"problem_type": "regression"}},
            "problem_type='regression', which .* load it without problem_type",
        ),
        ({"model": {"problem_type": "multi_label_classification"}}, "a 0 or 1 for each label"),
        (
            {"data": make_data(50, 0).filter(lambda row: row["label"] == 0)},
            "at least two classes must have training labels, got the counts",
        ),
        ({"data": make_data(50, 0).remove_columns("label")}, "no label column"),
        ({"data": make_data(50, 0, names=("a", "b", "c"))}, "load the model with num_labels=3"),
        ({"data": make_data(50, 0).to_iterable_dataset(), "config": {"max_steps": 2}}, "class_counts"),
        ({"config": {"class_weights": [1, 2, 3]}}, "one value for each of the 2 classes"),
        ({"config": {"class_weights": {"0": 1, "ham": 2, "spam": 3}}}, "one value for each of the 2 classes"),
        ({"config": {"class_weights": "5"}}, "one value for each of the 2 classes"),
        ({"config": {"class_weights": [1, "a"]}}, "positive finite numbers"),
        (
            {"config": {"class_weights": {"ham": 1, "spma": 7}}},
            "class_weights must be a class id or one of the class names .*, got 'spma'",
        ),
        ({"trainer": {"preprocess_logits_for_metrics": lambda logits, labels: logits}}, "give compute_metrics"),
        ({"config": {"batch_eval_metrics": True}}, "batch_eval_metrics"),
        (
            {"config": {"label_names": ["start", "end"]}},
            "must be a list with the one name that the batches have for the class ids; .* got .'start', 'end'.",
        ),
        (
            {"config": {"label_names": ["label"]}},
            "collators .* call them 'labels'.* got .'label'.: leave label_names out",
        ),
        ({"config": {"label_names": "labels"}}, r"label_names must be a list .* got 'labels': leave label_names out"),
        ({"data": DatasetDict(train=make_data(9, 0))}, r"DatasetDict .*give one split"),
        ({"data": make_data(50, 0).add_column("labels", [0] * 50)}, "got 'label', 'labels': remove all but one"),
        (
            {
                "data": make_data(50, 0)
                .cast_column("label", Value("int64"))
                .map(lambda row: {"label": row["label"] + 1})
            },
            "label ids from 1 to 2, but the model has num_labels=2: number the classes from 0",
        ),
        (
            {"data": make_data(50, 0, names=("spam", "ham")), "model": {"id2label": {0: "ham", 1: "spam"}}},
            "the class 'spam' has id 0 in train_dataset, but id 1 in the model",
        ),
        (
            {"trainer": {"eval_dataset": make_data(50, 0, names=("spam", "ham"))}},
            "the class 'spam' has id 0 in eval_dataset, but id 1 in the training data",
        ),
        (
            {"trainer": {"eval_dataset": {"a": make_data(50, 0), "b": make_data(50, 0, names=("spam", "ham"))}}},
            r"in eval_dataset\['b'\], but id 1 in the training data",
        ),
        ({"model": {"num_labels": 3}, "config": {"positive_label": "1"}}, "no meaning for 3 labels"),
        (
            {
                "model": {"problem_type": "multi_label_classification"},
                "config": {"label_smoothing_factor": 0.1},
            },
            "label_smoothing_factor must be 0 for several labels",
        ),
        ({"trainer": {"compute_loss_func": lambda *a, **k: 0}}, "compute_loss_func"),
    ],
)
def test_wrong_input_is_refused_by_the_constructor_in_one_sentence(tmp_path, train_data, change, sentence):
    with pytest.raises(InvalidInputError, match=sentence) as caught:
        make_trainer(
            WeightedLossTrainer,
            tmp_path,
            change.get("data", train_data),
            make_model(**change.get("model", {})),
            change.get("config"),
            **change.get("trainer", {}),
        )
    assert "\n" not in str(caught.value)


def test_test_data_whose_classes_have_another_order_are_refused(tmp_path, train_data):
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data)
    reversed_classes = make_data(50, 0, names=("spam", "ham"))
    for use in (trainer.predict, trainer.evaluate):
        with pytest.raises(InvalidInputError, match=r"the class 'spam' has id 0 in the .* data, but id 1"):
            use(reversed_classes)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "bool"])
def test_labels_of_any_integer_dtype_are_trained_on_and_evaluated_like_int64(tmp_path, train_data, eval_data, dtype):
    def train(cast):
        def collate_cast(rows):
            batch = collate(rows)
            return batch | {"labels": batch["labels"].to(cast)}

        trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"per_device_train_batch_size": 2})
        trainer.data_collator = collate_cast
        trainer.train()
        return losses(trainer), trainer.evaluate(eval_data)["eval_loss"], parameters(trainer.model)

    expected, found = train(torch.int64), train(getattr(torch, dtype))
    assert found[:2] == expected[:2]
    assert torch.equal(found[2], expected[2])


class StreamWithLength(torch.utils.data.IterableDataset):
    def __init__(self, rows):
        self.rows = list(rows)

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)


def test_a_stream_that_knows_its_length_trains_with_counts_and_is_refused_without(tmp_path, train_data):
    make_trainer(
        WeightedLossTrainer, tmp_path, StreamWithLength(train_data), config={"class_counts": [150, 42]}
    ).train()
    with pytest.raises(InvalidInputError, match="class_counts"):
        make_trainer(WeightedLossTrainer, tmp_path, StreamWithLength(train_data))


@pytest.mark.parametrize("size", [160, 168, 172])
def test_a_stream_that_ends_within_a_step_weighs_its_last_examples_once(tmp_path, train_data, size):
    """The steps are those of the same rows in memory."""
    rows, found = train_data.select(range(size)), []
    config = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "weight_ratio": 5.0}
    config |= {"max_steps": 2 * -(-size // 16), "train_sampling_strategy": "sequential", "class_counts": [150, 42]}
    for data in (rows, rows.to_iterable_dataset()):
        trainer = make_trainer(WeightedLossTrainer, tmp_path, data, config=config)
        trainer.train()
        found.append(parameters(trainer.model))
    assert torch.equal(*found)


def test_a_model_that_names_no_inputs_is_refused_with_what_to_set(tmp_path, train_data):
    class Wrapped(BertForSequenceClassification):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    model = Wrapped(make_model().config)
    with pytest.raises(InvalidInputError, match="set remove_unused_columns=False"):
        make_trainer(WeightedLossTrainer, tmp_path, train_data, model)
    make_trainer(WeightedLossTrainer, tmp_path, train_data, model, {"remove_unused_columns": False}).train()


def test_a_search_without_an_objective_minimises_the_unweighted_evaluation_loss(tmp_path, train_data, eval_data):
    found = []

    class Note(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            found.append((metrics["eval_plain_loss"], args.weight_ratio))

    ratios = [0.01, 2.0, 1000.0]
    best = WeightedLossTrainer(
        model_init=lambda: make_model(dropout=0.0),
        args=WeightedLossConfig(str(tmp_path), **quiet_args(eval_strategy="epoch", num_train_epochs=1)),
        train_dataset=train_data,
        eval_dataset=eval_data,
        data_collator=collate,
        callbacks=[Note()],
    ).hyperparameter_search(
        lambda trial: {"weight_ratio": trial.suggest_categorical("weight_ratio", ratios)},
        backend="optuna",
        n_trials=3,
        sampler=GridSampler({"weight_ratio": ratios}),
    )
    assert len(found) == 3
    assert (best.objective, best.hyperparameters["weight_ratio"]) == min(found)


@pytest.mark.parametrize(
    "model_class",
    ["BertForMaskedLM", "BertForQuestionAnswering", "SegformerForSemanticSegmentation", "GPT2LMHeadModel"],
)
def test_a_model_that_is_not_a_classifier_is_refused_by_name(tmp_path, train_data, model_class):
    kind = getattr(transformers, model_class)
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 30,
    }
    sizes |= {"n_embd": 8, "n_layer": 1, "n_head": 1}
    model = kind(kind.config_class(**sizes if "Segformer" not in model_class else {}))
    with pytest.raises(
        InvalidInputError, match=f"{model_class} is not supported: .* one row of logits for each label"
    ):
        make_trainer(WeightedLossTrainer, tmp_path, train_data, model)


def test_batches_without_labels_are_refused_in_one_sentence(tmp_path, train_data):
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data)
    trainer.data_collator = lambda rows: {("label" if k == "labels" else k): v for k, v in collate(rows).items()}
    with pytest.raises(InvalidInputError, match="the batches have no 'labels'"):
        trainer.train()


def test_streamed_data_without_known_columns_train_with_explicit_counts(tmp_path, train_data):
    streamed = train_data.to_iterable_dataset().map(lambda row: row)
    assert streamed.column_names is None
    config = {"class_counts": [150, 42], "max_steps": 2}
    make_trainer(WeightedLossTrainer, tmp_path, streamed, config=config).train()


def test_evaluating_without_any_counts_is_refused(tmp_path, eval_data):
    trainer = make_trainer(WeightedLossTrainer, tmp_path, None)
    with pytest.raises(InvalidInputError, match="no training labels"):
        trainer.evaluate(eval_data)


def test_a_loaded_model_of_several_labels_is_evaluated_with_the_weights_it_was_trained_with(tmp_path):
    hot = np.random.default_rng(0).random((96, 2)) < [0.1, 0.6]
    data = make_data(96, 0).remove_columns("label").add_column("labels", hot.astype(float).tolist())

    def collate_several(rows):
        batch = collate([row | {"label": 0} for row in rows])
        return batch | {"labels": torch.tensor([row["labels"] for row in rows])}

    model = make_model(problem_type="multi_label_classification")
    trainer = make_trainer(WeightedLossTrainer, tmp_path, data, model, {"weight_ratio": 5.0}, eval_dataset=data)
    trainer.data_collator = collate_several
    trainer.save_model()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    again = make_trainer(WeightedLossTrainer, tmp_path, None, loaded, eval_dataset=data)
    again.data_collator = collate_several
    assert again.class_weights.weights == pytest.approx(trainer.class_weights.weights)
    assert again.evaluate()["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"], abs=1e-6)
    for form in ({"LABEL_0": 3, "LABEL_1": 2}, [3, 2]):
        trainer = make_trainer(WeightedLossTrainer, tmp_path, data, model, {"class_weights": form})
        assert trainer.class_weights.weights[:, 1] / trainer.class_weights.weights[:, 0] == pytest.approx([3, 2])
    with pytest.raises(InvalidInputError, match="class_weights must be 2 positive finite numbers"):
        make_trainer(WeightedLossTrainer, tmp_path, data, model, {"class_weights": [[1, 2], [1, 3]]})
    trainer = make_trainer(WeightedLossTrainer, tmp_path, data, model, {"class_counts": "[[86, 10], [40, 56]]"})
    assert trainer.class_weights.natural_ratio == 8.6


def test_a_model_that_returns_no_logits_is_refused_in_one_sentence(tmp_path, train_data):
    class Model(BertForSequenceClassification):
        def forward(self, **inputs):
            return {"scores": super().forward(**inputs).logits}

    config = {"remove_unused_columns": False}
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, Model(make_model().config), config)
    with pytest.raises(InvalidInputError, match="no 'logits', only 'scores'"):
        trainer.train()


def test_a_model_that_returns_the_bare_logits_is_trained_and_evaluated_alike(tmp_path, train_data, eval_data):
    class Model(BertForSequenceClassification):
        def forward(self, input_ids=None, attention_mask=None):
            return super().forward(input_ids=input_ids, attention_mask=attention_mask).logits

    results = []
    for model_class in (BertForSequenceClassification, Model):
        torch.manual_seed(0)
        model = model_class(make_model(dropout=0.0).config)
        model.load_state_dict(make_model(dropout=0.0).state_dict())
        trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, model)
        trainer.train()
        results.append((trainer.predict(eval_data).predictions, trainer.evaluate(eval_data)["eval_loss"]))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("kind", ["sp_enabled", "cp_enabled"])
def test_parallelism_that_cuts_the_examples_is_refused(tmp_path, train_data, monkeypatch, kind):
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data)  # the real thing needs as many GPUs
    config = SimpleNamespace(**{"sp_enabled": False, "cp_enabled": False} | {kind: True})
    monkeypatch.setattr(type(trainer.accelerator), "parallelism_config", config)
    with pytest.raises(InvalidInputError, match="leave parallelism_config out"):
        check_trainer(trainer)


def test_the_ratio_may_be_a_scheme_or_a_flags_number(tmp_path, train_data):
    for written, ratio in (("sqrt", None), ("20", 20), ("unweighted", 1)):
        trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"weight_ratio": written})
        assert trainer.model.config.weight_ratio == (ratio or trainer.class_weights.natural_ratio**0.5)
    with pytest.raises(InvalidInputError, match="got 'sqr'"):
        make_trainer(WeightedLossTrainer, tmp_path, train_data, config={"weight_ratio": "sqr"})


@pytest.mark.parametrize(
    ("ratio", "best", "because"),
    [
        (None, False, "the natural ratio"),
        (20.0, False, "set by hand"),
        ("sqrt", False, "the scheme sqrt"),
        (20.0, True, "set by hand"),
    ],
)
def test_the_cards_figures_are_those_of_the_model_that_the_trainer_holds(
    tmp_path, train_data, eval_data, ratio, best, because
):
    config = {"weight_ratio": ratio, "num_train_epochs": 3, "eval_strategy": "epoch", "learning_rate": 0.5}
    if best:
        config |= {"load_best_model_at_end": True, "save_strategy": "best", "metric_for_best_model": "precision"}
    trainer = make_trainer(WeightedLossTrainer, tmp_path, train_data, config=config, eval_dataset=eval_data)
    trainer.train()
    trainer.create_model_card()
    card = ModelCard.load(tmp_path / "README.md")
    assert because in card.text
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    found = trainer.evaluate()
    assert results["precision"] == pytest.approx(found["eval_precision"], abs=1e-6)
    assert results["recall"] == pytest.approx(found["eval_recall"], abs=1e-6)
