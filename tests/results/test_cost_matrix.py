from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from results.sweeps import golden_sweep, make_point, make_sweep, write_sweep
from weighloss import InvalidInputError, RatioSweep, Task, reports
from weighloss.results.comparison import compare
from weighloss.results.requirement import Requirement
from weighloss.results.thresholds import best_thresholds

COSTS = np.array([[0, 1, 1], [20, 0, 5], [1, 1, 0]])
MATRIX = "cost [[0, 1, 1], [20, 0, 5], [1, 1, 0]]"


def cost_of(logits, labels, costs=COSTS, weights=None) -> float:
    """Expected cost per item, from the confusion matrix of scikit-learn."""
    found = confusion_matrix(labels, logits.argmax(1), labels=range(len(costs)), sample_weight=weights)
    return float((found * costs).sum() / found.sum())


def shifts(counts) -> np.ndarray:
    """What each ratio r′ subtracts from the logits: the weights of these counts at the power of an exponent."""
    log_counts = np.log(counts)
    return np.linspace(-2, 2, 41)[:, None] * (log_counts - log_counts.mean())


@pytest.mark.parametrize("seed", range(5))
def test_the_chosen_thresholds_have_the_lowest_expected_cost_of_all(seed):
    generator, counts = np.random.default_rng(seed), np.array([700, 200, 100])
    labels = generator.choice(3, 400, p=counts / counts.sum())
    logits = generator.normal(0, 1, (400, 3)) + np.log(counts) + 2 * np.eye(3)[labels]
    costs = generator.integers(0, 9, (3, 3))
    wanted = Requirement.parse(f"cost {costs.tolist()}")
    ((score, thresholds),) = best_thresholds([wanted], logits, labels, Task.MULTICLASS, counts=counts)
    drawn = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), 100).sum(axis=0)
    expected = [cost_of(logits - shift, labels, costs, drawn) for shift in shifts(counts)]
    assert -score == pytest.approx(min(expected))
    assert thresholds == pytest.approx(shifts(counts)[int(np.argmin(expected))])


def test_the_chosen_pair_has_the_lowest_mean_cost_over_the_resamples_of_all_pairs():
    sweep = golden_sweep("several_classes")
    choice = sweep.choose(MATRIX)
    size = sweep.num_eval
    drawn = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), 100).sum(axis=0)
    costs = {
        (point.ratio, tuple(shift)): cost_of(logits - shift, labels, weights=drawn)
        for point in sweep.points
        for logits, labels in [sweep.predictions(point)]
        for shift in shifts(sweep.counts)
    }
    logits, labels = sweep.predictions(choice.point.leg)
    shifted = logits - np.array(choice.point.threshold)
    assert cost_of(shifted, labels, weights=drawn) == pytest.approx(min(costs.values()))
    assert choice.cost == pytest.approx(cost_of(shifted, labels))
    assert max(sweep_scores(sweep, "any")) == pytest.approx(-min(costs.values()))
    argmax = sweep.choose(MATRIX, "argmax")
    at_argmax = [cost_of(*sweep.predictions(point)) for point in sweep.points]
    assert argmax.point.leg == sweep.points[int(np.argmin(at_argmax))]
    assert argmax.cost == pytest.approx(min(at_argmax))
    assert sweep_scores(sweep, "argmax") == pytest.approx([-cost for cost in at_argmax])


def sweep_scores(sweep: RatioSweep, threshold: str) -> list[float]:
    return replace(sweep, requirement=MATRIX, threshold=threshold).scores()


@pytest.mark.parametrize("factor", [0.1, 3, 1e6])
def test_the_unit_of_the_costs_changes_nothing_but_the_cost(factor):
    sweep = golden_sweep("several_classes")
    once, scaled = sweep.choose(MATRIX), sweep.choose(f"cost {(factor * COSTS).tolist()}")
    assert once.point == scaled.point
    assert scaled.cost == pytest.approx(factor * once.cost)


@pytest.mark.parametrize(("positive", "counts"), [(1, "cost fp=1 fn=20"), (0, "cost fp=20 fn=1")])
@pytest.mark.parametrize("threshold", ["any", "argmax"])
def test_with_two_classes_the_matrix_comes_to_the_costs_of_both_errors(tmp_path, positive, counts, threshold):
    sweep = write_sweep(tmp_path)
    if positive == 0:
        others = [make_point(leg.ratio, leg.tn, leg.fn, leg.fp, leg.tp) for leg in sweep.points]
        sweep = replace(sweep, points=tuple(others), positive_label=0)
    of_matrix, of_counts = sweep.choose("cost [[0, 1], [20, 0]]", threshold), sweep.choose(counts, threshold)
    assert of_matrix.point == of_counts.point
    assert of_matrix.cost == of_counts.cost
    logits, labels = sweep.predictions(of_matrix.point.leg)
    shift = np.where(np.arange(2) == positive, of_matrix.point.threshold, 0)
    assert of_matrix.cost == pytest.approx(cost_of(logits - shift, labels, np.array([[0, 1], [20, 0]])))
    # A diagonal that costs as much in each row as its class does anyway adds this to every rule.
    dearer = sweep.choose("cost [[2, 3], [22, 2]]", threshold)
    assert dearer.point == of_matrix.point
    assert dearer.cost == pytest.approx(of_matrix.cost + 2)


def test_what_no_matrix_of_these_classes_is_is_refused_and_says_how_many_there_are(tmp_path):
    three = make_sweep([make_point(1, 8, 2, 12, 78)], label_names=["a", "b", "c"])
    with pytest.raises(
        InvalidInputError, match="has a 2 x 2 matrix: write one row and one column for each of the 3 cl"
    ):
        three.choose("cost [[0, 1], [20, 0]]")
    with pytest.raises(InvalidInputError, match=r"has a 3 x 3 matrix: .* for each of the 2 classes"):
        write_sweep(tmp_path).choose(MATRIX)
    with pytest.raises(
        InvalidInputError, match=r"or a matrix such as cost \[\[0, 1, 1\], \[20, 0, 5\], \[1, 1, 0\]\]"
    ):
        three.choose("cost fp=1 fn=20")
    with pytest.raises(
        InvalidInputError, match="a right decision that costs more than the wrong one: write the costs"
    ):
        write_sweep(tmp_path).choose("cost [[1, 0], [0, 20]]")
    with pytest.raises(InvalidInputError, match="is for a single label per example: write cost fp=1 fn=20"):
        golden_sweep("several_labels").choose("cost [[0, 1], [20, 0]]")
    for threshold in ("any", "argmax"):
        with pytest.raises(
            InvalidInputError, match="needs the predictions, and they are not here: write f1 and thresh"
        ):
            three.choose(MATRIX, threshold)


@pytest.mark.parametrize("threshold", ["any", "argmax"])
def test_a_sweep_that_was_chosen_by_a_matrix_is_loaded_and_says_so_without_its_predictions(tmp_path, threshold):
    sweep = golden_sweep("several_classes")
    choice = sweep.choose(MATRIX, threshold)
    changes = {"requirement": MATRIX, "threshold": threshold, "kept_because": choice.because}
    kept = replace(sweep, operating_point=choice.point, **changes)
    assert kept.choose() == choice
    assert f"{choice.point.recall:.3f}, cost {choice.cost:.4g} per item." in str(choice)
    assert f"Chosen for {MATRIX}. At w_r = {choice.point.ratio:.4g}" in reports.summary(kept)
    kept.save(tmp_path)
    again = RatioSweep.load(tmp_path)
    assert replace(again, folder=None) == replace(kept, folder=None)
    assert again.choose() == replace(choice, cost=None)
    assert again.choose("cost [[0,1,1], [20,0,5], [1,1,0]]", threshold).point == choice.point
    assert str(again.choose()) == f"{MATRIX} chooses" + str(choice).split("chooses")[1].split(", cost")[0] + "."
    assert f"Chosen for {MATRIX}" in reports.summary(again)


def test_what_weighting_saves_is_the_difference_of_the_costs_on_the_same_items():
    sweep, costs = golden_sweep("several_classes"), np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    text = f"cost {costs.tolist()}"
    compared = compare(sweep, text)
    pair, alone = (compared.rules[name] for name in ("best ratio and threshold", "unweighted, best threshold"))
    assert (pair.ratio == sweep.natural_ratio, alone.ratio) == (True, 1)
    found = []
    for rule in (alone, pair):
        logits, labels = sweep.predictions(rule.leg)
        found.append(cost_of(logits - np.array(rule.threshold), labels, costs))
    assert compared.difference == pytest.approx(found[0] - found[1])
    low, high = compared.difference_interval
    assert 0 < low < compared.difference < high
    table = reports.compare_with_threshold(sweep, text)
    assert table.startswith(f"For {text} ")
    assert (
        f"Weighting is worth it here: with ratio and threshold the saving per item is +{found[0] - found[1]:.3f}"
        in table
    )
