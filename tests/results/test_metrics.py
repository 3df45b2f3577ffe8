import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import confusion_matrix, f1_score, matthews_corrcoef, precision_score, recall_score
from transformers import EvalPrediction

from weighloss import InvalidInputError, PrecisionRecall, classification_metrics, precision_recall

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs=pairs, positive=st.integers(0, 4))
def test_the_positive_label_is_judged_as_scikit_learn_judges_it_against_the_rest(pairs, positive):
    predictions, references = np.array(pairs).T
    ours = precision_recall(predictions, references, positive)
    truth, guess = references == positive, predictions == positive
    (tn, fp), (fn, tp) = confusion_matrix(truth, guess, labels=[False, True]).tolist()
    assert (ours["tn"], ours["fp"], ours["fn"], ours["tp"]) == (tn, fp, fn, tp)
    assert ours["precision"] == precision_score(truth, guess, zero_division=0)
    assert ours["recall"] == recall_score(truth, guess, zero_division=0)
    assert ours["f1"] == f1_score(truth, guess, zero_division=0)
    assert ours["accuracy"] == (predictions == references).mean()


@given(pairs=pairs, average=st.sampled_from(["macro", "micro"]))
@settings(deadline=None)
def test_averages_are_scikit_learns(pairs, average):
    predictions, references = np.array(pairs).T
    ours = precision_recall(predictions, references, average=average)
    assert ours["precision"] == pytest.approx(
        precision_score(references, predictions, average=average, zero_division=0)
    )
    assert ours["recall"] == pytest.approx(recall_score(references, predictions, average=average, zero_division=0))
    assert ours["tp"] == (predictions == references).sum()
    assert ours["fp"] == ours["fn"] == (predictions != references).sum()


def test_the_metric_says_when_a_denominator_is_zero():
    with pytest.warns(UndefinedMetricWarning, match="no predicted samples"):
        results = PrecisionRecall().compute(predictions=[0, 0], references=[0, 1])
    assert results["precision"] == results["recall"] == results["f1"] == 0


def test_the_metric_accumulates_batches_and_reports_matthews_correlation():
    metric = PrecisionRecall()
    generator = np.random.default_rng(0)
    predictions, references = generator.integers(0, 2, (2, 90))
    for start in range(0, 90, 30):
        metric.add_batch(predictions=predictions[start : start + 30], references=references[start : start + 30])
    results = metric.compute(positive_label=0)
    assert results["matthews_correlation"] == pytest.approx(matthews_corrcoef(references, predictions))
    expected = precision_recall(predictions, references, positive_label=0)
    assert {name: results[name] for name in expected} == expected


def test_an_unknown_average_is_refused():
    with pytest.raises(InvalidInputError, match="'binary', 'macro', 'micro'"):
        precision_recall(np.array([0]), np.array([0]), average="weighted")


def test_the_metric_works_offline_in_a_fresh_process(tmp_path):
    code = "from weighloss import PrecisionRecall as M; print(M().compute(predictions=[1, 0], references=[1, 1])['recall'])"
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_EVALUATE_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }
    run = subprocess.run([sys.executable, "-c", code], env=os.environ | offline, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == 0.5


def _score_a_share(process: int, cache: str, queue) -> None:
    generator = np.random.default_rng(0)
    predictions, references = generator.integers(0, 2, (2, 100))
    metric = PrecisionRecall(num_process=2, process_id=process, experiment_id="share", cache_dir=cache)
    metric.add_batch(predictions=predictions[process::2], references=references[process::2])
    queue.put((process, metric.compute()))


def test_the_metric_gathers_several_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_score_a_share, args=(i, str(tmp_path), queue)) for i in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=100) for _ in processes)
    for process in processes:
        process.join()
    predictions, references = np.random.default_rng(0).integers(0, 2, (2, 100))
    expected = precision_recall(predictions, references)
    assert {name: results[0][name] for name in expected} == expected
    assert results[1] is None  # evaluate computes on the main process


def test_ignored_labels_and_hidden_states_do_not_reach_the_default_metrics():
    logits = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    prediction = EvalPrediction(predictions=(logits, np.zeros((3, 7))), label_ids=np.array([1, -100, 0]))
    metrics = classification_metrics()(prediction)
    assert (metrics["tp"], metrics["fp"], metrics["fn"], metrics["tn"]) == (1, 1, 0, 0)


def test_predictions_in_a_list_of_batches_are_those_in_one_array():
    logits, labels = np.random.default_rng(0).normal(size=(6, 2)), np.array([1, 0, -100, 1, 1, 0])
    whole = classification_metrics()(EvalPrediction(predictions=logits, label_ids=labels))
    batches = EvalPrediction(predictions=[logits[:4], logits[4:]], label_ids=[labels[:4], labels[4:]])
    assert classification_metrics()(batches) == whole


def test_of_several_labels_precision_and_recall_are_scikit_learns_micro_averages():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(40, 3)), (generator.random((40, 3)) < 0.3).astype(np.float32)
    metrics = classification_metrics()(EvalPrediction(predictions=logits, label_ids=labels))
    predicted = (logits > 0).astype(int)
    assert metrics["precision"] == pytest.approx(precision_score(labels, predicted, average="micro"))
    assert metrics["recall"] == pytest.approx(recall_score(labels, predicted, average="micro"))
    assert metrics["f1"] == pytest.approx(f1_score(labels, predicted, average="micro"))
    assert metrics["tp"] + metrics["fp"] + metrics["fn"] + metrics["tn"] == 120
    labels[0, 0] = -100
    metrics = classification_metrics()(EvalPrediction(predictions=logits, label_ids=labels))
    assert metrics["tp"] + metrics["fp"] + metrics["fn"] + metrics["tn"] == 119


def test_labels_in_a_column_of_their_own_are_those_in_a_row():
    logits, labels = np.random.default_rng(0).normal(size=(6, 2)), np.array([1, 0, -100, 1, 1, 0])
    row, column = (
        classification_metrics()(EvalPrediction(predictions=logits, label_ids=found))
        for found in (labels, labels[:, None])
    )
    assert row == column


@pytest.mark.parametrize(
    ("predictions", "labels", "found"),
    [
        (np.array([1, 0]), np.array([1, 1]), "class ids"),
        (np.zeros((2, 2)), np.array([[0.3, 1], [0, 1]]), "between them"),
    ],
)
def test_what_is_no_logits_and_labels_of_0_and_1_is_refused(predictions, labels, found):
    with pytest.raises(InvalidInputError, match=f"{found} were found: give compute_metrics"):
        classification_metrics()(EvalPrediction(predictions=predictions, label_ids=labels))
