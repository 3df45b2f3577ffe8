from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.sweeps import golden_sweep, make_point, make_sweep, write_sweep
from weighloss import InvalidInputError, RatioSweep
from weighloss.results.choice import choose_each
from weighloss.results.requirement import Requirement

counts = st.tuples(*[st.integers(0, 50)] * 4).filter(lambda counts: counts[0] + counts[2] > 0)
REQUIREMENTS = [
    "f1",
    "mcc",
    "f0.5",
    "f2",
    "recall>=0.8",
    "precision>=0.7",
    "cost fp=1 fn=20",
    "cost fp=0 fn=1",
    "break-even",
]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("F1", "f1"),
        ("f-0.5", "f0.5"),
        ("recall >= 0.95", "recall>=0.95"),
        ("Recall>=95%", "recall>=0.95"),
        ("precision>.9", "precision>=0.9"),
        ("recall>=0.95 @90%", "recall>=0.95 @90%"),
        ("cost fp=1, fn=20", "cost fp=1 fn=20"),
        ("cost fp=0.00001 fn=12345678", "cost fp=1e-05 fn=12345678"),
        ("cost [[0,1],[20,0]]", "cost [[0, 1], [20, 0]]"),
        ("Cost[[0, 1.50, 1E-5], [20, 0, 5], [1, 1, 0]]", "cost [[0, 1.5, 1e-05], [20, 0, 5], [1, 1, 0]]"),
        ("recall>=0.95123456", "recall>=0.95123456"),
        ("breakeven", "break-even"),
        ("MCC", "mcc"),
        ("flagged <= 200 per 10000", "flagged<=0.02"),
        ("flagged<=2%", "flagged<=0.02"),
        ("Recall >= 95% and precision>=0.5", "recall>=0.95 and precision>=0.5"),
        ("precision>=.5 and flagged<=5 per 100", "precision>=0.5 and flagged<=0.05"),
    ],
)
def test_requirements_are_understood_as_they_are_written(written, text):
    assert Requirement.parse(written).text == text
    assert Requirement.parse(text) == Requirement.parse(written)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("recall>=1.5", "must have a number above 0 and up to 1, such as recall>=0.95"),
        ("recall>=0", "must have a number above 0 and up to 1, such as recall>=0.95"),
        ("recal>=0.9", "write 'recall>=0.9'"),
        ("prcision 0.8", "write 'precision>=0.8'"),
        ("f0", "write 'f1'"),
        ("cost 3", "write 'cost fp=1 fn=20'"),
        ("cost fp=0 fn=0", "write 'cost fp=1 fn=20'"),
        ("cost [0, 1]", "must have a square matrix of finite costs of at least 0"),
        ("cost [[0]]", "must have a square matrix"),
        ("cost [[0, 1], [1]]", "must have a square matrix"),
        ("cost [[0, 1, 2], [1, 0, 2]]", "must have a square matrix"),
        ("cost [[0, -1], [20, 0]]", "such as cost [[0, 1, 1], [20, 0, 5], [1, 1, 0]]"),
        ("cost [[0, 1e999], [20, 0]]", "must have a square matrix of finite costs"),
        (f"cost [[0, {10**400}], [20, 0]]", "must have a square matrix of finite costs"),
        ("cost [[0, 0], [0, 0]]", "one of them above 0"),
        ("cost [[0, 1], [20, 0]", "must have a square matrix"),
        ("cost " + "[" * 9000, "is not a requirement"),
        ("cost " + "[" * 9000 + "]", "must have a square matrix"),
        ("cost [[0, nan], [20, 0]]", "or one of f1"),
        ("recall>=0.9 @100%", "between 0% and 100%"),
        ("recall>=0.9 @0.9", "such as @90%"),
        ("recall>=0.9 and recall>=0.5", "two bounds of the same kind"),
        ("recall>=0.9 and precision>=0.5 @90%", "a single least recall or precision before the @"),
        ("flagged<=2% @90%", "a single least recall or precision before the @"),
        ("recall>=1 @90%", "must be below 1"),
        ("recall<=0.9", "write 'recall>=0.9'"),
        ("flagged<=200 per 100", "must have a number above 0 and up to 1, such as flagged<=0.95"),
        ("f1 @90%", "write 'f1'"),
        ("", "or one of f1"),
    ],
)
def test_what_is_no_requirement_is_refused_with_the_nearest_that_is(written, sentence):
    with pytest.raises(InvalidInputError, match=r"^[^\n]*$") as caught:
        Requirement.parse(written)
    assert sentence in str(caught.value)


@given(cases=st.lists(counts, min_size=1, max_size=12), requirement=st.sampled_from(REQUIREMENTS))
def test_no_other_point_is_better_than_the_one_chosen(cases, requirement):
    sweep = make_sweep([make_point(2.0**i, *case) for i, case in enumerate(cases)])
    choice = sweep.choose(requirement, threshold="argmax")
    chosen = choice.point
    if requirement in ("recall>=0.8", "precision>=0.7"):
        own, other, least = ("recall", "precision", 0.8) if "recall" in requirement else ("precision", "recall", 0.7)
        telling = [point for point in sweep.points if not (point.tn == point.fn == 0 < point.fp)]
        meeting = [point for point in telling if getattr(point, own) >= least]
        assert choice.met == bool(meeting)
        if meeting:
            assert getattr(chosen, own) >= least
            assert getattr(chosen, other) == max(getattr(point, other) for point in meeting)
        elif telling:
            assert getattr(chosen, own) == max(getattr(point, own) for point in telling)
        return

    def value(point):  # independent of the code: from the counts
        if requirement.startswith("f"):
            square = float(requirement[1:]) ** 2
            return (1 + square) * point.tp / max((1 + square) * point.tp + square * point.fn + point.fp, 1)
        if requirement == "mcc":
            tp, fp, fn, tn = (getattr(point, name) for name in ("tp", "fp", "fn", "tn"))
            return (tp * tn - fp * fn) / max(np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))), 1e-9)
        if requirement.startswith("cost"):
            fp, fn = (1, 20) if "fp=1" in requirement else (0, 1)
            return -(fp * point.fp + fn * point.fn) / (point.tp + point.fp + point.fn + point.tn)
        return -abs(point.precision - point.recall) if point.tp else -np.inf

    assert choice.met
    best = max(map(value, sweep.points))
    assert value(chosen) == pytest.approx(best, abs=1e-12) or (value(chosen) == best == -np.inf)


def test_the_choice_says_what_was_chosen_or_what_comes_nearest():
    sweep = make_sweep([make_point(1, 8, 1, 12, 79), make_point(7, 15, 3, 5, 77), make_point(70, 19, 21, 1, 59)])
    said = {
        wanted: str(sweep.choose(wanted, "argmax")) for wanted in ("recall>=0.7", "recall>=0.99", "cost fp=1 fn=20")
    }
    assert said["recall>=0.7"] == "recall>=0.7 chooses w_r = 7: precision 0.833, recall 0.750."
    assert said["recall>=0.99"] == "No leg meets recall>=0.99; the nearest is w_r = 70: precision 0.475, recall 0.950."
    assert said["cost fp=1 fn=20"].endswith("recall 0.950, cost 0.41 per item.")
    assert str(sweep.choose("recall>=0.9 and precision>=0.5", "argmax")) == (
        "No leg meets recall>=0.9 and precision>=0.5; the nearest is w_r = 70: precision 0.475, recall 0.950, which misses "
        "precision by 0.025."
    )
    everything = make_sweep([make_point(1, 8, 1, 12, 79), make_point(70, 20, 80, 0, 0)])
    assert str(everything.choose("recall>=0.7", "argmax")) == (
        "No leg meets recall>=0.7 except by calling everything positive (w_r = 70), which does not count; the nearest is "
        "w_r = 1: precision 0.889, recall 0.400."
    )
    cheapest = "w_r = 70: precision 0.200, recall 1.000, cost 0.8 per item; it calls everything positive."
    assert str(everything.choose("cost fp=1 fn=20", "argmax")) == f"cost fp=1 fn=20 chooses {cheapest}"
    with pytest.raises(InvalidInputError, match="no finished leg"):
        make_sweep([]).choose("f1")


def test_a_requirement_is_answered_by_ratio_and_threshold_together(tmp_path):
    sweep = write_sweep(tmp_path)
    at_argmax, choice = sweep.choose("recall>=0.99", "argmax"), sweep.choose("recall>=0.99")
    assert not at_argmax.met
    assert choice.met
    assert choice.point.recall >= 0.99
    logits, labels = sweep.predictions(choice.point.leg)
    predicted = logits[:, 1] - logits[:, 0] > choice.point.threshold
    assert (choice.point.tp, choice.point.fp) == (np.sum(predicted & (labels == 1)), np.sum(predicted & (labels == 0)))
    assert choice.point.flagged == predicted.mean()
    assert f"with the threshold {choice.point.threshold:.3g}" in str(choice)
    assert sweep.choose() == sweep.choose("f1", "argmax")  # where nobody says what for, no threshold moves
    few = sweep.choose("flagged<=5%")
    assert few.point.flagged <= 0.05


def test_a_guarantee_is_said_and_so_is_what_it_lacks(tmp_path):
    sweep = write_sweep(tmp_path, size=2000)
    choice = sweep.choose("recall>=0.9 @90%")
    assert choice.met
    assert choice.point.recall > 0.9
    assert str(choice).endswith("On new data of the same kind the bound holds with 90% probability.")
    nothing = sweep.choose("recall>=0.999 @90%")
    assert not nothing.met
    assert nothing.because == "chosen for recall>=0.999 @90%, without a guarantee"
    assert "it needs at least 2302 positive examples without a miss in the two thirds of the evaluation data" in str(
        nothing
    )
    with pytest.raises(InvalidInputError, match="leave out threshold='argmax'"):
        sweep.choose("recall>=0.9 @90%", "argmax")


def test_without_predictions_only_the_trained_ratios_or_the_choice_of_the_record_are_answered(tmp_path):
    sweep = write_sweep(tmp_path)
    choice = sweep.choose("recall>=0.97")
    replace(sweep, requirement="recall>=0.97", threshold="any", operating_point=choice.point).save(tmp_path)
    for point in sweep.points:
        (tmp_path / point.predictions).unlink()
    again = RatioSweep.load(tmp_path)
    assert again.choose().point == choice.point
    with pytest.raises(InvalidInputError, match="write threshold='argmax'"):
        again.choose("recall>=0.9")
    assert again.choose("recall>=0.9", "argmax").point.is_argmax


def test_what_has_no_meaning_for_a_task_is_refused():
    three = make_sweep([make_point(1, 8, 2, 12, 78)], label_names=["a", "b", "c"])
    for requirement in ("mcc", "flagged<=2%", "recall>=0.9 @90%", "cost fp=1 fn=2"):
        with pytest.raises(InvalidInputError, match="is for"):
            three.choose(requirement)
    with pytest.raises(InvalidInputError, match=r"threshold must be 'any' or 'argmax', got 0\.5"):
        three.choose("f1", 0.5)


@pytest.mark.parametrize("name", ["binary", "several_labels", "several_classes", "three_seeds"])
def test_many_requirements_are_answered_at_once_as_they_are_one_by_one(name):
    sweep = golden_sweep(name)
    asked = ["f1", "recall>=0.8", "precision>=0.7", "recall>=0.6 and precision>=0.6"]
    asked += ["cost fp=1 fn=20"] if name != "several_classes" else ["cost [[0, 1, 1], [20, 0, 5], [1, 1, 0]]"]
    together = choose_each(sweep, [Requirement.parse(text) for text in asked])
    assert together == [sweep.choose(text) for text in asked]


def test_a_requirement_that_a_shell_has_cut_is_said_to_need_quotes():
    with pytest.raises(InvalidInputError, match=r"write 'recall>=0.95' \(in quotes, since a shell reads > as"):
        Requirement.parse("recall")
