import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest
from datasets import Dataset, load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from conftest import SMS_SPAM
from weighloss import ClassWeights, RatioSweep, WeightedLossConfig, WeightedLossTrainer
from weighloss.cli.arguments import DataArguments
from weighloss.cli.data import load_data, tokenize
from weighloss.cli.main import main

CHARTS = ["precision_recall.png", "precision_recall.svg", "precision_recall_plane.png", "precision_recall_plane.svg"]
CHARTS += ["report.html"]


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
    return shlex.split(
        f"--train_file {spam_file} --model_name_or_path {small_model} --positive_label spam --disable_tqdm 1"
    )


@pytest.fixture
def run(capsys):
    """Runs `weighloss` in this process and returns what it printed, or the message that it ended with."""

    def run(*words: object) -> str:
        try:
            main(list(map(str, words)))
        except SystemExit as end:
            return str(end.code)
        return capsys.readouterr().out

    return run


def test_a_sweep_over_a_file_ends_with_table_sentences_charts_and_the_best_model(run_script, flags, tmp_path):
    out = tmp_path / "out"
    printed = run_script("sweep.py", *flags, "--output_dir", out, "--ratios", 1, 7, 500, "--learning_rate", 1e-2)
    sweep = RatioSweep.load(out)
    assert "No evaluation data given: 20% of the training data" in printed
    assert "Training labels: 112 ham, 16 spam. Natural weight ratio: 7." in printed
    assert "of 100 spam examples" in printed
    assert [point.ratio for point in sweep.points] == [1, 7, 500]
    assert sweep.positive_name == "spam"
    assert sweep.dataset == "spam.csv"
    for chart in CHARTS:
        assert (out / chart).stat().st_size > 5000
    assert "---" in (out / "README.md").read_text()

    best = sweep.choose().point.ratio
    assert f"the model of w_r = {best:.4g} are in {out}" in printed
    assert json.loads((out / "config.json").read_text())["weight_ratio"] == best
    classify = pipeline("text-classification", str(out), top_k=None)
    point = next(point for point in sweep.points if point.ratio == best)
    logits, _ = sweep.predictions(point)
    share = np.exp(logits[0]) / np.exp(logits[0]).sum()
    text = load_data(DataArguments(train_file=flags[1]))["validation"][0]["text"]
    scores = {answer["label"]: answer["score"] for answer in classify([text])[0]}
    assert scores["spam"] == pytest.approx(share[1], abs=1e-6)


def test_a_leg_of_the_command_is_the_stand_alone_run_with_its_seed(run, flags, small_model, tmp_path):
    run("sweep", *flags, "--output_dir", tmp_path / "out", "--ratios", 3, "--seeds", 1, 2)
    sweep = RatioSweep.load(tmp_path / "out")
    data_args = DataArguments(train_file=flags[1])
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    data = tokenize(load_data(data_args), tokenizer, data_args)
    assert len(sweep.points) == 2
    for point in sweep.points:
        trainer = WeightedLossTrainer(
            model_init=lambda: AutoModelForSequenceClassification.from_pretrained(small_model, num_labels=2),
            args=WeightedLossConfig(
                str(tmp_path / "standalone"),
                weight_ratio=3,
                seed=point.seed,
                num_train_epochs=1,
                per_device_train_batch_size=16,
                per_device_eval_batch_size=1,
                train_sampling_strategy="group_by_length",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
        )
        trainer.train()
        trainer.args.train_sampling_strategy = "random"  # and so the evaluation data in its order
        logits = trainer.predict(data["validation"]).predictions
        swept, labels = sweep.predictions(point)
        assert labels.tolist() == data["validation"]["label"][:]
        assert np.abs(swept - logits).max() < 1e-6  # the batches of 64 and of 1 pad differently


def test_the_chosen_model_is_tested_once_on_held_out_data(run, flags, spam_file, tmp_path):
    out = tmp_path / "out"
    printed = run("sweep", *flags, "--output_dir", out, "--ratios", 1, 7, "--test_file", spam_file)
    results = json.loads((out / "test_results.json").read_text())
    assert printed.count("On the held-out test data the model has precision") == 1
    assert "{" not in printed
    assert f"precision {results['test_precision']:.3f}, recall {results['test_recall']:.3f}" in printed
    assert results["test_tp"] + results["test_fn"] == 20
    assert "test texts are in the training data too" in printed


def test_a_search_is_for_the_requirement_of_choose(run, flags, tmp_path):
    out = tmp_path / "out"
    words = ("--choose", "recall>=0.9", "--search", "True", "--max_legs", 2, "--learning_rate", 1e-2)
    printed = run("sweep", *flags, "--output_dir", out, *words)
    sweep = RatioSweep.load(out)
    assert 1 <= len(sweep.points) <= 2
    assert "recall>=0.9" in str(sweep.requirement)
    assert "Results, charts and the model" in printed


def test_the_same_sweep_again_trains_nothing_and_says_the_same(run, flags, tmp_path):
    words = ["sweep", *flags, "--output_dir", tmp_path / "out", "--ratios", 1, 7]
    first, sweep = run(*words), (tmp_path / "out" / "sweep.json").read_text()
    again = run(*words)
    assert (tmp_path / "out" / "sweep.json").read_text() == sweep
    assert again.splitlines()[-1] == first.splitlines()[-1]


def test_a_training_saves_its_model_its_card_and_its_evaluation(run, flags, tmp_path):
    out = tmp_path / "out"
    printed = run("train", *flags, "--output_dir", out, "--weight_ratio", 20, "--num_train_epochs", 2)
    results = json.loads((out / "eval_results.json").read_text())
    assert results["epoch"] == 2
    assert f"On the evaluation data the model has precision {results['eval_precision']:.3f}" in printed
    config = json.loads((out / "config.json").read_text())
    assert config["weight_ratio"] == 20
    assert config["id2label"] == {"0": "ham", "1": "spam"}
    assert "w_r" in (out / "README.md").read_text()
    assert "On the evaluation data" in run("train", *flags, "--output_dir", out, "--weight_ratio", 2)  # over its own


def test_a_training_keeps_its_best_checkpoint_where_that_is_asked(run, flags, tmp_path):
    words = (
        "--num_train_epochs",
        2,
        "--load_best_model_at_end",
        "--eval_strategy",
        "epoch",
        "--save_strategy",
        "epoch",
    )
    assert "On the evaluation data" in run("train", *flags, "--output_dir", tmp_path / "out", *words)
    assert len(list((tmp_path / "out").glob("checkpoint-*"))) == 2


def test_charts_are_drawn_again_from_the_predictions_with_other_metrics(run, run_script, flags, tmp_path):
    out, charts = tmp_path / "out", tmp_path / "charts"
    run("sweep", *flags, "--output_dir", out, "--ratios", 1, 7)
    moved = shutil.move(out, tmp_path / "moved")
    words = ("--metrics", "f1", "matthews_correlation", "--output_dir", charts)
    run_script("plot_precision_recall.py", moved, *words)
    for chart in CHARTS:
        assert (charts / chart).stat().st_size > 5000
    assert (charts / "precision_recall.svg").read_text() != (moved / "precision_recall.svg").read_text()
    assert matplotlib.image.imread(charts / "precision_recall.png").shape[2] == 4

    printed = run("plot", moved, "--choose", "recall>=0.1")
    assert "recall>=0.1" in printed
    where = f"The charts are in {moved}; open its report.html in a browser to move the requirement."
    assert printed.endswith(f"{where}\nThe model in {moved} is unchanged (best F1).\n")
    for folder in ("/proc/charts", moved / "sweep.json"):
        message = run("plot", moved, "--output_dir", folder)
        assert message.startswith(f"error: the folder {folder} cannot be written to (")
    assert "requirement" in run("plot", moved, "--choose", "recal>=0.1")


def test_code_of_metrics_is_not_downloaded_unless_it_is_trusted(run, flags, tmp_path):
    run("sweep", *flags, "--output_dir", tmp_path / "out", "--ratios", 1, 7)
    message = run("plot", tmp_path / "out", "--metrics", "somebody/metric")
    assert message.startswith("error: ")
    assert "trust_remote_code" in message
    assert "\n" not in message


def test_a_sweep_whose_legs_all_fail_says_why(run, flags, tmp_path):
    message = run(
        "sweep", *flags, "--output_dir", tmp_path, "--ratios", 1, 7, "--learning_rate", 1e30, "--adam_epsilon", 0
    )
    assert message.startswith("error: no leg has results: the loss is nan")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--positive_label", "spma"], "'spma'"),
        (["--text_column_names", "body"], "the train data has no column 'body'"),
        (["--label_column_name", "target"], "the train data has no column 'target'"),
        (["--train_file", "missing.csv"], "there is no file missing.csv"),
        (["--model_name_or_path", "no/such/model"], "there is no folder no/such/model"),
        (["--class_weights", '{"spam": 3}'], "class_weights"),
    ],
)
def test_what_the_data_shows_to_be_wrong_ends_with_one_sentence_and_trains_nothing(
    run, flags, tmp_path, change, sentence
):
    ended = run("sweep", *flags, "--output_dir", tmp_path / "out", *change)
    assert ended.startswith("error: ")
    assert sentence in ended
    assert "\n" not in ended
    assert not (tmp_path / "out" / "predictions").exists()


@pytest.mark.slow
def test_a_stopped_sweep_says_the_command_that_resumes_it(flags, tmp_path):
    """Stopped by Ctrl-C; test_command_line.py has other signals."""
    out = tmp_path / "out"
    words = [*flags, "--output_dir", str(out), "--ratios", "1", "4", "16", "--epochs_per_ratio", "10"]
    process = subprocess.Popen([sys.executable, "-m", "weighloss", "sweep", *words], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not ((out / "sweep.json").exists() and RatioSweep.load(out).points):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    last = process.communicate()[1].splitlines()[-1]
    assert process.returncode == 128 + signal.SIGINT
    assert last == f"stopped; to resume, run {shlex.join(['weighloss', 'sweep', *words])}"
    done = RatioSweep.load(out).points
    assert 1 <= len(done) < 3
    main(["sweep", *words])
    points = RatioSweep.load(out).points
    assert len(points) == 3
    assert points[: len(done)] == done


@pytest.mark.slow
@pytest.mark.skipif(not SMS_SPAM.exists(), reason="the SMS Spam Collection is not beside the repository")
def test_sms_spam_moves_from_precision_to_recall_with_the_ratio(run_script, tmp_path, minilm):
    out = tmp_path / "out"
    printed = run_script(
        "sweep.py", "--train_file", SMS_SPAM, "--text_column_names", "sms", "--label_column_name", "label",
        "--positive_label", "spam", "--output_dir", out, "--max_seq_length", 24, "--max_train_samples", 320,
        "--max_eval_samples", 200, "--ratios", 0.6, 6.46, 2000, "--learning_rate", 2e-4, "--per_device_train_batch_size", 8,
        "--disable_tqdm", 1,
    )  # fmt: skip
    low, natural, high = RatioSweep.load(out).points
    assert low.precision > high.precision + 0.15
    assert low.recall < high.recall - 0.02
    assert natural.f1 > high.f1
    assert "277 ham, 43 spam. Natural weight ratio: 6.442" in printed


@pytest.mark.skipif(not SMS_SPAM.exists(), reason="the SMS Spam Collection is not beside the repository")
def test_the_natural_ratio_of_all_sms_messages_is_what_the_data_set_says():
    data = load_dataset("csv", data_files=str(SMS_SPAM), split="train", keep_default_na=False).class_encode_column(
        "label"
    )
    class_weights = ClassWeights.from_dataset(data, positive_label="spam")
    assert class_weights.counts.tolist() == [4827, 747]
    assert class_weights.natural_ratio == pytest.approx(6.46, abs=0.005)
