import dataclasses

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from results.sweeps import ARTICLE, make_point, make_sweep
from weighloss import ClassWeights, FailedLeg, InvalidInputError, RatioSweep, precision_recall, report
from weighloss.results.files import write_predictions

COUNTS = ("tp", "fp", "fn", "tn")


def test_the_table_has_every_ratio_and_marks_natural_break_even_and_best():
    sweep = make_sweep([*ARTICLE, make_point(1.0, 9, 2, 11, 78)])
    header, *rows = report.table(sweep).split("\n")
    assert header.split() == ["w_r", "x", "natural", "1/(1+w_r)", "precision", "recall", "F1", "TP", "FP", "FN", "TN"]
    assert len(rows) == 7
    marked = {row.split()[0]: row for row in rows}
    assert marked["0.07"].endswith("nothing predicted positive")
    assert marked["1"].endswith("unweighted")
    assert "natural" in marked["7"]
    assert marked["7"].endswith("best F1")
    assert marked["7"].split()[:10] == ["7", "1", "0.125", "0.833", "0.750", "0.789", "15", "3", "5", "77"]
    assert [row for row in rows if "break-even" in row] == [marked[f"{sweep.break_even():.4g}"]]
    assert [float(row.split()[0]) for row in rows] == sorted(float(row.split()[0]) for row in rows)


def test_the_sentence_is_about_a_hundred_flagged_and_a_hundred_there_are():
    sweep = make_sweep(ARTICLE)
    assert report.sentence(sweep, 7.0) == (
        "At w_r = 7: of 100 examples flagged as spam, 83 are spam; of 100 spam examples, 75 are found."
    )
    assert "nothing is flagged as spam" in report.sentence(sweep, 0.07)
    several = dataclasses.replace(sweep, label_names=["a", "b", "c"])
    assert "on average over the classes" in report.sentence(several, 7.0)
    with pytest.raises(InvalidInputError, match="no leg at w_r = 8"):
        report.sentence(sweep, 8)
    third = make_sweep([dataclasses.replace(ARTICLE[2], ratio=7 / 3)])
    assert report.sentence(third, 2.333) == report.sentence(third, 7 / 3)  # as the table prints it


def test_the_summary_speaks_of_natural_best_and_break_even():
    sweep = make_sweep(ARTICLE)
    summary = report.summary(sweep)
    assert summary.startswith("Natural ratio. At w_r = 7:")
    assert "Best F1. At w_r = 7:" in summary
    assert f"at about w_r = {sweep.break_even():.4g}" in summary
    assert "do not cross" in report.summary(make_sweep(ARTICLE[:3]))
    assert "No ratio found any spam: train longer" in report.summary(make_sweep(ARTICLE[:1]))


def test_the_summary_says_where_the_legs_were_too_short_to_learn():
    assert "Every ratio calls everything spam, or nothing: train longer" in report.summary(
        make_sweep([ARTICLE[0], ARTICLE[-1]])
    )
    assert "Every ratio" not in report.summary(make_sweep(ARTICLE))
    assert "Short legs. 10 optimizer steps each" in report.summary(make_sweep(ARTICLE))
    long = [dataclasses.replace(point, global_step=200 * i) for i, point in enumerate(ARTICLE, start=1)]
    assert "Short legs" not in report.summary(make_sweep(long))


def test_the_imbalance_is_named_class_by_class():
    text = report.imbalance(ClassWeights.from_counts([8800, 1200]), ["ham", "spam"])
    assert text == (
        "Training labels: 8,800 ham, 1,200 spam. Natural weight ratio: 7.333. Precision and recall are those of spam."
    )
    larger = report.imbalance(ClassWeights.from_counts([1200, 8800]), ["churn", "stay"])
    assert larger.endswith("That is the larger class: to look for churn, write --positive_label churn.")


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_are_computed_anew_from_the_predictions(tmp_path, classes):
    generator = np.random.default_rng(0)
    points = [make_point(ratio, 1, 1, 1, 1, seed) for seed in (1, 2) for ratio in (1.0, 7.0)]
    predictions = {}
    for point in points:
        logits, labels = generator.normal(size=(50, classes)).astype(np.float32), generator.integers(0, classes, 50)
        write_predictions(tmp_path / point.predictions, logits, labels, {})
        predictions[point] = logits.argmax(-1), labels
    make_sweep(points, seeds=[1, 2], label_names=["a", "b", "c"][:classes]).save(tmp_path)
    scores = report.score(RatioSweep.load(tmp_path), ["precision", "f1", "matthews_correlation"])
    average = "binary" if classes == 2 else "macro"
    for point in report.recomputed(RatioSweep.load(tmp_path)).points:
        expected = precision_recall(*predictions[make_point(point.ratio, 1, 1, 1, 1, point.seed)], average=average)
        assert (point.tp, point.precision, point.f1) == (expected["tp"], expected["precision"], expected["f1"])
    for i, ratio in enumerate((1.0, 7.0)):
        own = [pair for point, pair in predictions.items() if point.ratio == ratio]
        for name in ("precision", "f1"):
            assert scores[name][i] == pytest.approx(
                np.mean([precision_recall(*pair, average=average)[name] for pair in own])
            )
        assert scores["matthews_correlation"][i] == pytest.approx(np.mean([matthews_corrcoef(y, p) for p, y in own]))


def test_a_metric_from_a_folder_is_used_and_an_unknown_one_refused(tmp_path):
    point = make_point(1.0, 1, 1, 1, 1)
    write_predictions(tmp_path / point.predictions, np.eye(2), np.array([0, 1]), {})
    make_sweep([point]).save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    folder = tmp_path / "share_positive"
    folder.mkdir()
    (folder / "share_positive.py").write_text(
        "import datasets\nimport evaluate\n"
        "class SharePositive(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        label = datasets.Value('int64')\n"
        "        features = datasets.Features({'predictions': label, 'references': label})\n"
        "        return evaluate.MetricInfo(description='', citation='', features=features)\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'share_positive': sum(predictions) / len(predictions), 'all': predictions}\n"
    )
    scores = report.score(sweep, [str(folder)])
    assert scores.keys() == {"share_positive"}  # an array is no curve
    assert scores["share_positive"].tolist() == [0.5]
    with pytest.raises(InvalidInputError, match="'no_such_metric' is neither built in nor can it be loaded"):
        report.score(sweep, ["no_such_metric"])


def test_a_leg_that_predicts_nothing_positive_is_left_out_of_other_curves_of_precision_too(tmp_path):
    labels = np.array([1] * 5 + [0] * 15)
    for seed, found in ((1, 4), (2, 0)):
        logits = np.stack([np.full(20, 0.5), (np.arange(20) < found).astype(float)], axis=1)
        write_predictions(tmp_path / make_point(7.0, found, 0, 5 - found, 15, seed).predictions, logits, labels, {})
    points = [make_point(7.0, 4, 0, 1, 15, 1), make_point(7.0, 0, 0, 5, 15, 2)]
    make_sweep(points, seeds=[1, 2]).save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    scores = report.score(sweep, ["precision", "recall"])
    assert scores["precision"].tolist() == sweep.curve("precision")["precision"].tolist() == [1.0]
    assert scores["recall"].tolist() == [0.4]


def test_intervals_stand_beside_precision_and_recall_where_there_is_one_seed():
    intervals = {"precision_interval": [0.7, 0.95], "recall_interval": [0.55, 0.91]}
    sweep = make_sweep([dataclasses.replace(make_point(7.0, 15, 3, 5, 77), **intervals)])
    assert "0.833 0.700-0.950 0.750 0.550-0.910" in report.table(sweep)
    two = dataclasses.replace(sweep, seeds=[1, 2])
    assert "0.700-0.950" not in report.table(two)


def test_a_sweep_whose_legs_all_failed_says_why():
    failed = (FailedLeg(7.0, 42, "its logits are not finite", 10),)
    sweep = make_sweep([], ratios=[7.0], failed=failed)
    assert report.summary(sweep) == "Failed. At w_r = 7 with seed 42: its logits are not finite."
    assert report.table(sweep).splitlines()[1].split() == ["7", "1", "0.125", "failed"]


def test_every_token_is_counted_once_where_a_class_is_absent():
    predictions, references = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])  # of three classes
    counts = {n: v for n, v in precision_recall(predictions, references, average="macro").items() if n in COUNTS}
    assert make_sweep([make_point(1, **counts)], label_names=["a", "b", "c"]).num_items == 4
