import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from safetensors.torch import save_file
from transformers import AutoTokenizer, TrainerState, pipeline

from conftest import SMS_SPAM
from test_record import make_point, make_sweep
from weighloss import (
    ClassWeights,
    InvalidInputError,
    RatioSweep,
    RatioSweepCallback,
    WeightedLossConfig,
    WeightedLossTrainer,
    script,
)
from weighloss.cli.model import ModelArguments, load_tokenizer

CHARTS = ["precision_recall.png", "precision_recall.svg", "precision_recall_plane.png", "precision_recall_plane.svg"]


@pytest.fixture(scope="module")
def spam_file(tmp_path_factory) -> str:
    generator = np.random.default_rng(0)
    words = np.array(["meeting", "lunch", "tomorrow", "home", "later", "thanks", "call", "weather", "train", "late"])
    prizes = np.array(["win", "free", "prize", "cash", "urgent", "claim"])
    rows = {"sms": [], "label": []}
    for i in range(160):
        spam = i % 8 == 0
        rows["sms"].append(" ".join(generator.choice(prizes if spam else words, 6)))
        rows["label"].append("spam" if spam else "ham")
    file = tmp_path_factory.mktemp("data") / "spam.csv"
    Dataset.from_dict(rows).to_csv(file)
    return str(file)


@pytest.fixture(scope="module")
def flags(spam_file, small_model) -> list[str]:
    return [
        "--train_file",
        spam_file,
        "--model_name_or_path",
        small_model,
        "--positive_label",
        "spam",
        "--disable_tqdm",
        "1",
    ]


def test_a_sweep_over_a_file_ends_with_table_sentences_charts_and_the_best_model(run_script, flags, tmp_path):
    out = tmp_path / "out"
    printed = run_script("sweep.py", *flags, "--output_dir", out, "--ratios", 1, 7, 500, "--learning_rate", 1e-2)
    sweep = RatioSweep.load(out)
    assert "No evaluation data given: 20% of the training data" in printed
    assert "Training labels: 112 ham, 16 spam. Natural weight ratio: 7." in printed
    assert "natural" in printed
    assert "best F1" in printed
    assert "of 100 spam examples" in printed
    assert [point.ratio for point in sweep.points] == [1, 7, 500]
    assert sweep.positive_name == "spam"
    assert sweep.dataset == "spam.csv"
    for chart in CHARTS:
        assert (out / chart).stat().st_size > 5000

    best = sweep.best("f1")
    assert json.loads((out / "config.json").read_text())["weight_ratio"] == best
    classify = pipeline("text-classification", str(out), top_k=None)
    point = next(point for point in sweep.points if point.ratio == best)
    rows = load_dataset(
        "parquet", data_files=str(out / point.predictions), split="train", cache_dir=str(tmp_path / "cache")
    )
    share = np.exp(rows[0]["logits"]) / np.exp(rows[0]["logits"]).sum()
    from weighloss.cli.data import DataArguments, load_data

    text = load_data(DataArguments(train_file=flags[1]))["validation"][0]["text"]
    scores = {answer["label"]: answer["score"] for answer in classify([text])[0]}
    assert scores["spam"] == pytest.approx(share[1], abs=1e-6)


def test_a_leg_of_the_script_is_the_standalone_run_with_its_seed(run_script, flags, small_model, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from weighloss.cli.data import DataArguments, load_data, tokenize

    run_script(
        "sweep.py", *flags, "--output_dir", tmp_path / "out", "--ratios", 3, "--seeds", 1, 2, "--save_strategy", "no"
    )
    sweep = RatioSweep.load(tmp_path / "out")
    data_args = DataArguments(train_file=flags[1])
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    data = tokenize(load_data(data_args), tokenizer, data_args)
    for point in sweep.points:
        trainer = WeightedLossTrainer(
            model_init=lambda: AutoModelForSequenceClassification.from_pretrained(small_model, num_labels=2),
            args=WeightedLossConfig(
                str(tmp_path / "standalone"),
                weight_ratio=3,
                seed=point.seed,
                num_train_epochs=1,
                per_device_train_batch_size=16,
                train_sampling_strategy="group_by_length",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
        )
        trainer.train()
        logits = trainer.predict(data["validation"]).predictions[
            np.argsort(list(trainer._get_eval_sampler(data["validation"])))
        ]
        swept, labels = sweep.predictions(point)
        assert labels.tolist() == data["validation"]["label"][:]
        assert np.abs(swept - logits).max() < 1e-6  # the batches of 64 and of 8 pad differently


def test_the_kept_model_is_tested_once_on_data_that_no_choice_saw(run_script, flags, spam_file, tmp_path):
    out = tmp_path / "out"
    printed = run_script("sweep.py", *flags, "--output_dir", out, "--ratios", 1, 7, "--test_file", spam_file)
    results = json.loads((out / "test_results.json").read_text())
    assert f"On the test data, which no choice saw, the model has precision {results['test_precision']:.3f}" in printed
    assert results["test_tp"] + results["test_fn"] == 20
    assert "test texts are training texts too" in printed


def test_charts_are_redrawn_from_the_predictions_with_other_metrics(run_script, flags, tmp_path):
    out, charts = tmp_path / "out", tmp_path / "charts"
    run_script("sweep.py", *flags, "--output_dir", out, "--ratios", 1, 7, "--save_strategy", "no")
    moved = shutil.move(out, tmp_path / "moved")
    edited = (moved / "sweep.json").read_text().replace('"recall": 1.0', '"recall": 0.123')
    (moved / "sweep.json").write_text(edited)  # the predictions decide, not what was recorded
    printed = run_script(
        "plot_precision_recall.py", moved, "--metrics", "f1", "matthews_correlation", "--output_dir", charts
    )
    assert "0.123" not in printed
    for chart in CHARTS:
        assert (charts / chart).stat().st_size > 5000
    assert (charts / "precision_recall.svg").read_text() != (moved / "precision_recall.svg").read_text()
    assert matplotlib.image.imread(charts / "precision_recall.png").shape[2] == 4


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--ratios", "0"], "error: '0' is no weight ratio"),
        (["--ratios", "nan"], "error: 'nan' is no weight ratio"),
        (
            ["--positive_label", "spma"],
            "error: positive_label names 'spma', which is not a class: the classes are 'ham', 'spam'",
        ),
        (["--text_column_names", "body"], "error: the train data has no text column 'body'"),
        (["--label_column_name", "target"], "error: the train data has no column 'target'"),
        (["--train_file", "missing.csv"], "error: there is no file missing.csv"),
        (["--num_ratios", "1"], "error: num_ratios=1 makes no sweep"),
        (["--class_weights", "{spam: 3}"], "error: class_weights='{spam: 3}' is not JSON"),
        (["--preview", "1", "--preview_layers", "0"], "error: --preview_layers 0 trains none"),
        (["--dataset_name", "imdb"], "error: --dataset_name and --train_file were both given"),
        (["--model_name_or_path", "no/such/model"], "error: no/such/model cannot be loaded"),
    ],
)
def test_wrong_flags_end_with_one_sentence_and_train_nothing(run_script, flags, tmp_path, change, sentence):
    ended = run_script("sweep.py", *flags, "--output_dir", tmp_path / "out", *change)
    assert ended.startswith(sentence)
    assert "\n" not in ended
    assert not (tmp_path / "out" / "predictions").exists()


def test_an_unknown_flag_ends_with_usage_and_its_name(run_script, flags, capsys):
    assert run_script("sweep.py", *flags, "--no_such_flag", "7") == "2"
    assert "no_such_flag" in capsys.readouterr().err
    assert run_script("plot_precision_recall.py", "out", "--no_such_flag", "7") == "2"
    assert "no_such_flag" in capsys.readouterr().err


def test_a_folder_that_is_not_there_and_unknown_flags_of_a_push_end_in_one_sentence(run_script, tmp_path, capsys):
    ended = run_script("push.py", tmp_path / "no", "--hub_model_id", "user/spam")
    assert ended == f"error: there is no folder {tmp_path / 'no'} to push: give the output folder of a training."
    assert run_script("push.py", "out", "--hub_model_id", "user/spam", "--token", "hf_secret") == "2"
    shown = capsys.readouterr().err
    assert "--token ***" in shown
    assert "hf_secret" not in shown


@pytest.mark.parametrize(
    "flags",
    [["--hub_token", "hf_secret"], ["--hub_token=hf_secret"], ["--hub-token", "hf_secret"], ["--hub_t", "hf_secret"]],
)
def test_a_token_is_not_in_the_command_that_goes_on(tmp_path, monkeypatch, capsys, flags):
    monkeypatch.setattr("sys.argv", ["train.py", *flags, "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        script.run(lambda args: os.kill(os.getpid(), signal.SIGTERM), (WeightedLossConfig,), "", "")
    shown = capsys.readouterr().err
    assert ended.value.code == 128 + signal.SIGTERM
    assert f"to start again, run {sys.executable} train.py " in shown
    assert shown.rstrip().endswith(f"--output_dir {tmp_path}")
    assert "***" in shown
    assert "hf_secret" not in shown


def test_the_command_that_goes_on_names_the_last_whole_checkpoint(tmp_path, monkeypatch, capsys):
    for step in (3, 12, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (3, 12):  # at 20 it was being written
        TrainerState(global_step=step).save_to_json(str(tmp_path / f"checkpoint-{step}" / "trainer_state.json"))
        save_file({"weight": torch.zeros(1)}, tmp_path / f"checkpoint-{step}" / "model.safetensors")
    monkeypatch.setattr("sys.argv", ["train.py", "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit):
        script.run(lambda args: os.kill(os.getpid(), signal.SIGINT), (WeightedLossConfig,), "", "")
    assert capsys.readouterr().err.rstrip().endswith(f"--resume_from_checkpoint {tmp_path / 'checkpoint-12'}")


@pytest.mark.parametrize(("keeps_best", "ratios"), [(True, [90, 900]), (False, [1, 9])])
def test_a_preview_is_refined_around_the_model_that_its_metric_kept(tmp_path, keeps_best, ratios):
    points = [make_point(ratio, 10 + i, 5 * i * i, 10 - i, 100) for i, ratio in enumerate((1, 9, 90, 900))]
    preview = replace(make_sweep(points), kept=3)
    assert preview.best("f1") < 900
    callback, swept = RatioSweepCallback(), []
    callback.sweep = preview
    trainer = SimpleNamespace(
        args=SimpleNamespace(output_dir=str(tmp_path), load_best_model_at_end=keeps_best),
        accelerator=SimpleNamespace(print=lambda *_, **__: None),
        train=lambda: None,
        remove_callback=lambda _: None,
        add_callback=swept.append,
    )
    script.preview_and_refine(trainer, callback, 2)
    assert swept[0].ratios == ratios  # the last leg's model is kept of itself, and the best F1 is then meant


def test_a_tokenizer_without_padding_is_refused(tmp_path, small_model):
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InvalidInputError, match="has no padding token"):
        load_tokenizer(ModelArguments(model_name_or_path=str(tmp_path)))


def test_a_folder_without_a_sweep_cannot_be_redrawn(run_script, tmp_path):
    assert run_script("plot_precision_recall.py", tmp_path).startswith("error: there is no sweep at")


@pytest.mark.slow
@pytest.mark.skipif(not SMS_SPAM.exists(), reason="the SMS Spam Collection is not beside the repository")
def test_sms_spam_moves_from_precision_to_recall_with_the_ratio(run_script, tmp_path, minilm):
    out = tmp_path / "out"
    printed = run_script(
        "sweep.py", "--train_file", SMS_SPAM, "--text_column_names", "sms", "--label_column_name", "label",
        "--positive_label", "spam", "--output_dir", out, "--max_seq_length", 32, "--max_train_samples", 480,
        "--max_eval_samples", 250, "--ratios", 0.6, 6.46, 2000, "--learning_rate", 2e-4, "--save_strategy", "no",
        "--disable_tqdm", 1,
    )  # fmt: skip
    low, natural, high = RatioSweep.load(out).points
    assert low.precision > high.precision + 0.15
    assert low.recall < high.recall - 0.02
    assert natural.f1 > high.f1
    assert "Natural weight ratio: 6.5" in printed  # 416 and 64 of the 480 messages


@pytest.mark.skipif(not SMS_SPAM.exists(), reason="the SMS Spam Collection is not beside the repository")
def test_the_natural_ratio_of_all_sms_messages_is_what_the_data_set_says():
    data = load_dataset("csv", data_files=str(SMS_SPAM), split="train", keep_default_na=False).class_encode_column(
        "label"
    )
    class_weights = ClassWeights.from_dataset(data, positive_label="spam")
    assert class_weights.counts.tolist() == [4827, 747]
    assert class_weights.natural_ratio == pytest.approx(6.46, abs=0.005)
