import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    matthews_corrcoef,
    multilabel_confusion_matrix,
    precision_recall_fscore_support,
)
from transformers import EvalPrediction

from weighloss import InvalidInputError, PrecisionRecall, classification_metrics, precision_recall
from weighloss.results.metrics import confusion
from weighloss.weighting.task import Task

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60)


@given(pairs=pairs)
@settings(deadline=None)
def test_confusion_counts_are_those_of_scikit_learn(pairs):
    predictions, references = np.array(pairs).T
    classes = np.union1d(predictions, references)
    ours = confusion(predictions, references, classes)
    expected = multilabel_confusion_matrix(references, predictions, labels=classes).reshape(-1, 4).T
    assert np.array_equal([ours.tn, ours.fp, ours.fn, ours.tp], expected)


@given(pairs=pairs, average=st.sampled_from(["binary", "macro", "micro"]), positive=st.integers(0, 4))
@settings(deadline=None)
def test_precision_recall_and_f1_are_those_of_scikit_learn(pairs, average, positive):
    predictions, references = np.array(pairs).T
    ours = precision_recall(predictions, references, positive, average)
    judged = references, predictions
    if average == "binary":  # scikit-learn refuses more than two classes
        judged = references == positive, predictions == positive
        expected = confusion_matrix(*judged, labels=[False, True]).ravel().tolist()
        assert [ours[name] for name in ("tn", "fp", "fn", "tp")] == expected
    expected = precision_recall_fscore_support(*judged, average=average, zero_division=0)
    assert (ours["precision"], ours["recall"], ours["f1"]) == pytest.approx(expected[:3])
    assert ours["accuracy"] == pytest.approx(accuracy_score(references, predictions))


@given(
    logits=arrays(np.float32, (12, 3), elements=st.floats(-3, 3, width=32)),
    labels=arrays(np.int64, (12, 3), elements=st.integers(0, 1)),
    unknown=st.integers(0, 11),
)
@settings(deadline=None)
def test_metrics_of_several_labels_are_micro_averages_over_the_labels_that_count(logits, labels, unknown):
    labels[unknown] = -100
    ours = classification_metrics(Task.MULTILABEL)(EvalPrediction(predictions=logits, label_ids=labels))
    known = np.delete(labels, unknown, axis=0), np.delete(logits > 0, unknown, axis=0).astype(int)
    expected = precision_recall_fscore_support(*known, average="micro", zero_division=0)
    assert (ours["precision"], ours["recall"], ours["f1"]) == pytest.approx(expected[:3])
    counts = multilabel_confusion_matrix(*known).sum(axis=0).ravel().tolist()
    assert [ours[name] for name in ("tn", "fp", "fn", "tp")] == counts


def test_where_a_denominator_is_zero_the_metric_is_zero():
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
    expected = precision_recall_fscore_support(references, predictions, average="binary", pos_label=0)
    assert (results["precision"], results["recall"], results["f1"]) == pytest.approx(expected[:3])


def test_an_unknown_average_is_refused():
    with pytest.raises(InvalidInputError, match="'binary', 'macro' or 'micro'"):
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
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_score_a_share, args=(i, str(tmp_path), queue)) for i in range(2)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=100) for _ in processes)
    for process in processes:
        process.join()
    predictions, references = np.random.default_rng(0).integers(0, 2, (2, 100))
    expected = precision_recall_fscore_support(references, predictions, average="binary")
    assert (results[0]["precision"], results[0]["recall"], results[0]["f1"]) == pytest.approx(expected[:3])
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


def test_labels_in_a_column_of_their_own_are_those_in_a_row():
    logits, labels = np.random.default_rng(0).normal(size=(6, 2)), np.array([1, 0, -100, 1, 1, 0])
    row, column = (
        classification_metrics()(EvalPrediction(predictions=logits, label_ids=found))
        for found in (labels, labels[:, None])
    )
    assert row == column


@pytest.mark.parametrize(
    ("predictions", "labels", "task", "found"),
    [
        (np.array([1, 0]), np.array([1, 1]), Task.BINARY, r"predictions of shape \(2,\)"),
        (np.zeros((2, 3), int), np.array([[1, 0, 1], [0, 1, 0]]), Task.MULTILABEL, "int64 logits"),
        (np.zeros((2, 2)), np.array([[0.3, 1], [0, 1]]), Task.MULTILABEL, "labels from 0.0 to 1.0"),
    ],
)
def test_other_predictions_than_logits_and_other_labels_are_refused(predictions, labels, task, found):
    with pytest.raises(InvalidInputError, match=f"{found}.*: give compute_metrics"):
        classification_metrics(task)(EvalPrediction(predictions=predictions, label_ids=labels))
