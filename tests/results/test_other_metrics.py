import socket

import evaluate
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, matthews_corrcoef, precision_recall_fscore_support

from results.sweeps import make_point, make_sweep
from weighloss import InvalidInputError, RatioSweep
from weighloss.results.files import write_predictions
from weighloss.results.other_metrics import score


def write_metric(folder, name: str) -> str:
    """The folder of an `evaluate` metric that returns a number and an array."""
    (folder / name).mkdir()
    (folder / name / f"{name}.py").write_text(
        "import datasets\nimport evaluate\n"
        "class SharePositive(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        label = datasets.Value('int64')\n"
        "        features = datasets.Features({'predictions': label, 'references': label})\n"
        "        return evaluate.MetricInfo(description='', citation='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'share_positive': sum(predictions) / len(predictions), 'all': predictions}\n"
    )
    return str(folder / name)


@pytest.fixture
def sweep(tmp_path) -> RatioSweep:
    point = make_point(1.0, 1, 1, 1, 1)
    write_predictions(tmp_path / point.predictions, np.eye(2), np.array([0, 1]), {})
    make_sweep([point]).save(tmp_path)
    return RatioSweep.load(tmp_path)


@pytest.fixture
def no_network(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)
    return fail


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_are_computed_from_the_predictions_as_scikit_learn_does(tmp_path, classes):
    generator = np.random.default_rng(0)
    points = [make_point(ratio, 1, 1, 1, 1, seed) for seed in (1, 2) for ratio in (1.0, 7.0)]
    decided = {}
    for point in points:
        logits, labels = generator.normal(size=(50, classes)).astype(np.float32), generator.integers(0, classes, 50)
        write_predictions(tmp_path / point.predictions, logits, labels, {})
        decided[point.ratio, point.seed] = labels, logits.argmax(-1)
    make_sweep(points, seeds=[1, 2], label_names=["a", "b", "c"][:classes]).save(tmp_path)
    sweep, average = RatioSweep.load(tmp_path), "binary" if classes == 2 else "macro"
    for leg in sweep.points:
        point = sweep.at_threshold(leg, 0.0)
        expected = precision_recall_fscore_support(*decided[leg.ratio, leg.seed], average=average)
        assert (point.precision, point.recall, point.f1) == pytest.approx(expected[:3])
        assert point.precision_interval[0] < point.precision < point.precision_interval[1]
    scores = score(sweep, ["precision", "f1", "matthews_correlation", "balanced_accuracy"])
    for i, ratio in enumerate((1.0, 7.0)):
        own = [decided[ratio, seed] for seed in (1, 2)]
        averages = [precision_recall_fscore_support(*pair, average=average) for pair in own]
        assert scores["precision"][i] == pytest.approx(np.mean([found[0] for found in averages]))
        assert scores["f1"][i] == pytest.approx(np.mean([found[2] for found in averages]))
        assert scores["matthews_correlation"][i] == pytest.approx(np.mean([matthews_corrcoef(*pair) for pair in own]))
        expected = np.mean([balanced_accuracy_score(*pair) for pair in own])
        assert scores["balanced_accuracy"][i] == pytest.approx(expected)


def test_the_metric_of_a_local_folder_or_script_is_used_without_the_network(sweep, tmp_path, no_network):
    folder = write_metric(tmp_path, "share_positive")
    for path in (folder, f"{folder}/share_positive.py"):
        scores = score(sweep, [path])
        assert {name: values.tolist() for name, values in scores.items()} == {"share_positive": [0.5]}


@pytest.mark.parametrize("name", ["rouge", "user/metric", "./no/such/folder"])
def test_without_trust_remote_code_a_name_on_the_hub_is_refused_without_asking_it(
    sweep, tmp_path, monkeypatch, no_network, name
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rouge").mkdir()  # without the script that would make it a metric, evaluate asks the Hub for the name
    monkeypatch.setattr(evaluate, "load", no_network)
    with pytest.raises(InvalidInputError, match=r"is not built in: write precision, .* with trust_remote_code=True"):
        score(sweep, [name])


def test_with_trust_remote_code_a_metric_that_cannot_be_loaded_is_named(sweep):
    with pytest.raises(InvalidInputError, match="'no_such_metric' cannot be loaded"):
        score(sweep, ["no_such_metric"], trust_remote_code=True)


def test_a_leg_that_predicts_nothing_positive_is_left_out_of_other_curves_of_precision_too(tmp_path):
    labels = np.array([1] * 5 + [0] * 15)
    for seed, found in ((1, 4), (2, 0)):
        logits = np.stack([np.full(20, 0.5), (np.arange(20) < found).astype(float)], axis=1)
        write_predictions(tmp_path / make_point(7.0, found, 0, 5 - found, 15, seed).predictions, logits, labels, {})
    points = [make_point(7.0, 4, 0, 1, 15, 1), make_point(7.0, 0, 0, 5, 15, 2)]
    make_sweep(points, seeds=[1, 2]).save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    scores = score(sweep, ["precision", "recall"])
    assert scores["precision"].tolist() == sweep.curve("precision")["precision"].tolist() == [1.0]
    assert scores["recall"].tolist() == [0.4]
