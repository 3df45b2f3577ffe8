import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.sweeps import ARTICLE, make_point, make_sweep
from weighloss import FailedLeg, InvalidInputError, RatioSweep, SweepPoint


def test_a_saved_sweep_is_loaded_equal_from_its_folder_and_its_file(tmp_path):
    sweep = make_sweep(ARTICLE)
    sweep.save(tmp_path / "new" / "folder")
    assert RatioSweep.load(tmp_path / "new" / "folder") == sweep
    assert RatioSweep.load(tmp_path / "new" / "folder" / "sweep.json") == sweep
    assert json.loads((tmp_path / "new" / "folder" / "sweep.json").read_text())["format_version"] == 1


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    sweep = make_sweep(ARTICLE)
    sweep.save(tmp_path)

    def no_space(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        dataclasses.replace(sweep, dataset="other").save(tmp_path)
    assert RatioSweep.load(tmp_path) == sweep


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no sweep at"),
        ('{"format_version": 1, "counts"', "cannot be read as JSON"),
        ('{"format_version": 99}', "format version 99"),
        ("[]", "format version None"),
        ('{"format_version": 1}', "sweep.json: counts: Field required"),
    ],
)
def test_what_is_no_sweep_is_refused_in_one_sentence(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(InvalidInputError, match=sentence):
        RatioSweep.load(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('"recall": 0.4,', "", r"points\[1\]\.recall: Field required\."),
        ('"recall": 0.4,', '"recall": "0.4",', r"points\[1\]\.recall: Input should be a valid number, got '0.4'"),
        ('"tp": 8,', '"tp": null,', r"points\[1\]\.tp: Input should be a valid integer, got None"),
        ('"ratio": 0.7,', '"ratio": 0.8,', r"points\[1\]: ratio and seed must be those of a leg of this sweep"),
        ('"ratio": 0.7,', '"ratio": 0.07,', r"points\[1\]: ratio and seed must be those of a leg of this sweep, once"),
        ('"fn": 20,\n      "tn": 80,', '"fn": 0, "tn": 0,', r"points\[0\]: tp, fp, fn, tn must not all be 0"),
        (
            '"threshold": 0.0,\n    "tp": 15,\n    "fp": 3,\n    "fn": 5,\n    "tn": 77,',
            '"threshold": 0.0, "tp": 0, "fp": 0, "fn": 0, "tn": 0,',
            "sweep.json: operating_point: tp, fp, fn, tn must not all be 0",
        ),
        ('"counts": [\n    700,', '"counts": [[1, 2], [3, -1]], "x": [', r"sweep.json: counts\[1\]\[1\]: .*, got -1"),
        ('"dataset": "messages"', '"dataset": "\\ud800"', "sweep.json: Invalid JSON"),
        ('"reason": "no memory"', '"reason": 3', r"failed\[0\]\.reason: Input should be a valid string, got 3"),
        ('"kept": 2', '"kept": 5', "kept must be the number of a point, got 5"),
        (
            '"threshold": 0.0',
            '"threshold": "low"',
            "operating_point: threshold: Input should be a valid number, got 'low'",
        ),
        ('"threshold": 0.0', '"threshold": [1, 2]', "the threshold must be one number, or one for each label"),
        ('"requirement": "f1"', '"requirement": "best"', "sweep.json: requirement: 'best' is not a requirement"),
    ],
)
def test_a_damaged_leg_is_refused_by_its_number_and_its_field(tmp_path, before, after, sentence):
    failed = FailedLeg(ratio=1.0, seed=42, reason="no memory", global_step=3)
    ratios = [1.0, *(point.ratio for point in ARTICLE)]
    make_sweep(ARTICLE, kept=2, failed=(failed,), ratios=ratios).save(tmp_path)
    text = (tmp_path / "sweep.json").read_text()
    assert before in text
    (tmp_path / "sweep.json").write_text(text.replace(before, after, 1))
    with pytest.raises(InvalidInputError, match=sentence):
        RatioSweep.load(tmp_path)


def test_missing_and_damaged_predictions_are_refused(tmp_path):
    make_sweep(ARTICLE).save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        sweep.predictions(sweep.points[0])
    (tmp_path / "predictions").mkdir()
    (tmp_path / sweep.points[0].predictions).write_bytes(b"PAR1 truncated")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        sweep.predictions(sweep.points[0])


def test_the_break_even_is_interpolated_in_the_logarithm_of_the_ratio():
    low, high = ARTICLE[2], ARTICLE[3]
    gap_low, gap_high = low.precision - low.recall, high.precision - high.recall
    share = gap_low / (gap_low - gap_high)
    expected = math.exp(math.log(7) + share * (math.log(70) - math.log(7)))
    sweep = make_sweep(ARTICLE)
    assert sweep.break_even() == pytest.approx(expected)
    assert sweep.at(sweep.break_even(), "precision") == pytest.approx(sweep.at(sweep.break_even(), "recall"))


@given(
    at=st.floats(-2.9, 2.9),
    slope=st.floats(0.05, 1),
    natural=st.floats(0.01, 100),
    decades=st.lists(st.floats(-3, 3), min_size=3, max_size=12, unique_by=lambda x: round(x, 3)),
)
def test_curves_that_are_lines_in_the_logarithm_of_the_ratio_cross_where_they_cross(at, slope, natural, decades):
    points = []
    for decade in [-3, *decades, 3]:
        point = make_point(10**decade, 1, 1, 1, 1)
        gap = slope * (at - decade)
        points.append(SweepPoint(**vars(point) | {"precision": 0.5 + gap / 2, "recall": 0.5 - gap / 2}))
    assert math.log10(make_sweep(points, natural_ratio=natural).break_even()) == pytest.approx(at, abs=1e-6)


def test_legs_that_predict_no_positive_are_no_crossing():
    assert make_sweep(ARTICLE[:3]).break_even() is None
    assert make_sweep([ARTICLE[0]]).break_even() is None
    never = [make_point(0.1, 0, 0, 20, 80), make_point(1, 0, 0, 20, 80), make_point(10, 19, 21, 1, 59)]
    assert make_sweep(never).break_even() is None
    nothing_right = [make_point(0.1, 0, 3, 20, 77), ARTICLE[1]]
    assert make_sweep(nothing_right).break_even() is None


def test_the_value_at_the_break_even_does_not_pass_through_a_leg_without_positives():
    collapsed = [ARTICLE[1], make_point(9.0, 0, 0, 20, 80), ARTICLE[3]]
    sweep = make_sweep(collapsed)
    assert sweep.break_even() == make_sweep([ARTICLE[1], ARTICLE[3]]).break_even()
    assert sweep.at(sweep.break_even(), "precision") == pytest.approx(sweep.at(sweep.break_even(), "recall"))
    assert sweep.at(sweep.break_even(), "precision") > 0.4


def test_a_leg_in_which_precision_is_recall_is_the_break_even():
    assert make_sweep([ARTICLE[1], make_point(7.0, 15, 5, 5, 75), ARTICLE[3]]).break_even() == 7.0


def test_of_several_crossings_the_one_nearest_to_natural_counts():
    zigzag = [
        make_point(1, 10, 1, 10, 79),
        make_point(10, 15, 9, 5, 71),
        make_point(100, 12, 3, 8, 77),
        make_point(1000, 20, 80, 0, 0),
    ]
    near_low, near_high = (
        make_sweep(zigzag, natural_ratio=2.0).break_even(),
        make_sweep(zigzag, natural_ratio=500.0).break_even(),
    )
    assert 1 < near_low < 10
    assert 100 < near_high < 1000


def test_several_seeds_are_averaged_by_ratio():
    points = [make_point(1, 8, 2, 12, 78, 1), make_point(9, 15, 5, 5, 75, 1), make_point(1, 10, 10, 10, 70, 2)]
    curve = make_sweep(points, seeds=[1, 2]).curve("precision", "tp")
    assert curve["ratio"].tolist() == [1, 9]
    assert curve["precision"].tolist() == pytest.approx([(0.8 + 0.5) / 2, 0.75])
    assert curve["tp"].tolist() == [9, 15]


def test_a_leg_that_predicts_nothing_positive_has_no_precision_to_average():
    silent = [make_point(ratio, 0, 0, 20, 80, seed) for ratio, seed in ((0.5, 1), (1, 1), (0.5, 2))]
    sweep = make_sweep([*silent, make_point(1, 8, 2, 12, 78, 2), make_point(1, 6, 4, 14, 76, 3)], seeds=[1, 2, 3])
    curve = sweep.curve("precision", "recall")
    assert curve["precision"].tolist() == pytest.approx([0, (0.8 + 0.6) / 2])  # 0 where no leg has any
    assert curve["recall"].tolist() == pytest.approx([0, (0.4 + 0.3) / 3])


def test_a_point_with_intervals_can_be_a_key_and_any_attribute_is_interpolated():
    point = dataclasses.replace(make_point(1, 8, 2, 12, 78), precision_interval=[0.5, 0.9])
    assert {point: 1}[point] == 1
    sweep = make_sweep([point, make_point(100, 16, 8, 4, 72)])
    assert sweep.at(10, "fp") == pytest.approx(5)


def test_more_than_two_classes_have_no_single_score(tmp_path):
    sweep = make_sweep([make_point(1, 8, 2, 12, 78)], label_names=["a", "b", "c"])
    with pytest.raises(InvalidInputError, match="3 classes have no single score"):
        sweep.positives_and_scores(sweep.points[0])


def test_an_empty_sweep_has_nothing_to_choose_from():
    with pytest.raises(InvalidInputError, match="no finished leg"):
        make_sweep([]).choose()
    assert make_sweep([]).break_even() is None
    assert np.array_equal(make_sweep([]).curve("f1")["f1"], [])
