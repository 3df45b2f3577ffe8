import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from results.sweeps import ARTICLE, make_point, make_sweep, write_leg
from weighloss import ClassWeights, FailedLeg, InvalidInputError, RatioSweep, reports
from weighloss.results.metrics import precision_recall


def test_the_table_has_every_ratio_and_marks_natural_break_even_and_best():
    sweep = make_sweep([*ARTICLE, make_point(1.0, 9, 2, 11, 78)])
    header, *rows = reports.table(sweep).split("\n")
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
    assert reports.sentence(sweep, 7.0) == (
        "At w_r = 7: of 100 examples flagged as spam, 83 are spam; of 100 spam examples, 75 are found."
    )
    assert "nothing is flagged as spam" in reports.sentence(sweep, 0.07)
    several = make_sweep(ARTICLE, label_names=["a", "b", "c"])
    assert "on average over the classes" in reports.sentence(several, 7.0)
    with pytest.raises(InvalidInputError, match="no leg at w_r = 8"):
        reports.sentence(sweep, 8)
    third = make_sweep([dataclasses.replace(ARTICLE[2], ratio=7 / 3)])
    assert reports.sentence(third, 2.333) == reports.sentence(third, 7 / 3)  # as the table prints it


def test_the_summary_speaks_of_natural_best_and_break_even():
    sweep = make_sweep(ARTICLE)
    summary = reports.summary(sweep)
    assert summary.startswith("Natural ratio. At w_r = 7:")
    assert "Best F1. At w_r = 7:" in summary
    assert f"at about w_r = {sweep.break_even():.4g}" in summary
    assert "do not cross" in reports.summary(make_sweep(ARTICLE[:3]))


def test_another_requirement_marks_and_explains_another_leg():
    for sweep, requirement in (
        (make_sweep(ARTICLE, requirement="recall>=0.9"), None),
        (make_sweep(ARTICLE), "recall>=0.9"),
    ):
        assert "Chosen for recall>=0.9. At w_r = 70:" in reports.summary(sweep, requirement)
        (row,) = [row for row in reports.rows(sweep, requirement) if "chosen for recall>=0.9" in row[-1]]
        assert row[0] == "70"
        assert "best F1" not in reports.table(sweep, requirement)
    nearest = "Nearest to recall>=0.99, which no leg meets. At w_r = 70:"
    assert nearest in reports.summary(make_sweep(ARTICLE), "recall>=0.99")


def test_with_several_seeds_the_mark_is_the_leg_that_is_chosen():
    points = [make_point(1, 14, 2, 6, 78, 1), make_point(7, 19, 1, 1, 79, 1)]
    points += [make_point(1, 14, 2, 6, 78, 2), make_point(7, 2, 3, 18, 77, 2)]  # on average w_r = 1 has the higher F1
    sweep = make_sweep(points, seeds=[1, 2])
    assert sweep.choose().point.leg == points[1]
    assert {row[0] for row in reports.rows(sweep) if "best F1" in row[-1]} == {"7"}
    assert "Best F1. At w_r = 7:" in reports.summary(sweep)


@pytest.mark.parametrize(
    ("points", "what"),
    [
        (ARTICLE[:1], "At argmax no leg finds any spam"),
        ([ARTICLE[0], ARTICLE[-1]], "At argmax no leg is better than calling everything spam"),
        ([make_point(1, 1, 1, 19, 79), ARTICLE[-1]], "At argmax no leg is better than calling everything spam"),
    ],
)
def test_where_nothing_is_learned_the_summary_says_so_and_no_leg_is_the_best(points, what):
    sweep = make_sweep(points)
    summary = reports.summary(sweep)
    assert f"Nothing learned. {what}: train longer" in summary
    assert "est F1" not in summary + reports.table(sweep)
    assert "Nothing learned" not in reports.summary(make_sweep(ARTICLE))


def test_the_summary_says_where_the_legs_were_too_short():
    assert "Short legs. Each had 10 optimizer steps" in reports.summary(make_sweep(ARTICLE))
    long = [dataclasses.replace(point, global_step=200 * i) for i, point in enumerate(ARTICLE, start=1)]
    assert "Short legs" not in reports.summary(make_sweep(long))


def test_the_summary_says_how_many_legs_of_an_unfinished_sweep_are_done():
    failed = (FailedLeg(1.0, 42, "its logits are not finite", 10),)
    sweep = make_sweep(ARTICLE[:4], ratios=[0.07, 0.7, 1.0, 7.0, 70.0, 700.0], failed=failed)
    assert "Unfinished. 5 of 6 legs are done: run the sweep again" in reports.summary(sweep)
    assert "Unfinished" not in reports.summary(make_sweep(ARTICLE))


def test_the_imbalance_is_named_class_by_class():
    text = reports.imbalance(ClassWeights.from_counts([8800, 1200]), ["ham", "spam"])
    assert text == (
        "Training labels: 8,800 ham, 1,200 spam. Natural weight ratio: 7.333. Precision and recall are those of spam."
    )
    larger = reports.imbalance(ClassWeights.from_counts([1200, 8800]), ["churn", "stay"])
    assert larger.endswith("That is the larger class: to look for churn, write --positive_label churn.")


def test_intervals_stand_beside_precision_and_recall_where_there_is_one_seed():
    intervals = {"precision_interval": [0.7, 0.95], "recall_interval": [0.55, 0.91]}
    sweep = make_sweep([dataclasses.replace(make_point(7.0, 15, 3, 5, 77), **intervals)])
    assert "0.833 0.700-0.950 0.750 0.550-0.910" in reports.table(sweep)
    two = dataclasses.replace(sweep, seeds=[1, 2])
    assert "0.700-0.950" not in reports.table(two)


def test_a_sweep_whose_legs_all_failed_says_why():
    failed = (FailedLeg(7.0, 42, "its logits are not finite", 10),)
    sweep = make_sweep([], ratios=[7.0], failed=failed)
    assert reports.summary(sweep) == "Failed. At w_r = 7 with seed 42: its logits are not finite."
    assert reports.table(sweep).splitlines()[1].split() == ["7", "1", "0.125", "failed"]
    assert len(reports.table(make_sweep([], ratios=[7.0])).splitlines()) == 1


def test_every_token_is_counted_once_where_a_class_is_absent():
    predictions, references = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1])  # of three classes
    found = precision_recall(predictions, references, average="macro")
    counts = {name: found[name] for name in ("tp", "fp", "fn", "tn")}
    assert make_sweep([make_point(1, **counts)], label_names=["a", "b", "c"]).num_items == 4


def test_importing_the_room_is_cheap():
    code = (
        "import sys, weighloss.reports; print([m for m in ('matplotlib', 'evaluate', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_threshold_may_meet_a_requirement_though_no_leg_does_at_argmax(tmp_path):
    labels = (np.arange(200) < 30).astype(int)
    scores = np.random.default_rng(0).normal(labels * 4 - 30, 1)
    make_sweep([write_leg(tmp_path, 7.0, scores, labels)], requirement="recall>=0.9", threshold="any").save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    summary = reports.summary(sweep)
    assert "Chosen for recall>=0.9. At w_r = 7 with the threshold -2" in summary
    assert "Nothing learned. At argmax no leg finds any spam: train longer" in summary
    assert "chosen for recall>=0.9" in reports.table(sweep)
