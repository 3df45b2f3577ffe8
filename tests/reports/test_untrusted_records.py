"""A sweep.json may come from a stranger: it is shown, or refused in one sentence."""

import copy
import json
import math
import os
import tempfile
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from results.sweeps import GOLDEN
from weighloss import ClassWeights, InvalidInputError, RatioSweep, plot_sweep, reports
from weighloss.reports.model_card import model_card
from weighloss.weighting.task import Task

NAMES = ["binary", "several_classes", "several_labels", "three_seeds"]
RECORDS = {name: json.loads((GOLDEN / name / "sweep.json").read_text()) for name in NAMES}
PATHS = [
    "../outside.parquet",
    "/etc/passwd",
    r"C:\x.parquet",
    r"\\server\share\x",
    r"a\..\..\x",
    "a" * 5000,
    "\0",
    ".",
]
ODD = [None, math.nan, math.inf, -1, -0.5, 0, 1, 2, 7, 10**400, 1e-300, {}, [], [[]], [1], [1, 2, 3], [[1, 0], [0, 1]]]
ODD += ["", "$", "recall>=0.9 @90%", "cost fp=1 fn=0", "\ud800", "<script>", "| `x` |\n# y", *PATHS]
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=8,
)


@st.composite
def changed_records(draw):
    """A sweep with up to three fields, of the sweep or of a point, that are missing or have another value."""
    name = draw(st.sampled_from(NAMES))
    record = copy.deepcopy(RECORDS[name])
    lost = record["points"].pop(draw(st.integers(0, len(record["points"]) - 1)))
    record["failed"] = [{field: lost[field] for field in ("ratio", "seed", "global_step")} | {"reason": "no memory"}]
    places = [*[record] * 6, *record["points"], *record["failed"]]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(places))
        field = draw(st.sampled_from(sorted(place)))
        if draw(st.integers(0, 4)) == 0 and len(place) > 1:
            del place[field]
        else:
            place[field] = draw(st.sampled_from(ODD) | any_json)
    return name, record


def show(name: str, record) -> RatioSweep:
    """Load a record beside the predictions of a golden sweep, and show it in every way."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(GOLDEN / name / "predictions", f"{folder}/predictions")
        Path(folder, "sweep.json").write_text(json.dumps(record))
        sweep = RatioSweep.load(folder)
        reports.table(sweep)
        reports.summary(sweep)
        if sweep.points:
            with warnings.catch_warnings(action="ignore"):  # of signs without a glyph, and of texts that do not fit
                for figure in plot_sweep(sweep).values():
                    figure.draw_without_rendering()
        of_task = ClassWeights.from_multi_label_counts if sweep.task is Task.MULTILABEL else ClassWeights.from_counts
        model_card(
            name="user/model",
            model=torch.nn.Identity(),
            class_weights=of_task(np.array(sweep.counts)),
            label_names=sweep.label_names,
            because=sweep.kept_because,
            evaluation=sweep.kept_point.metrics if sweep.kept_point else None,
            sweep=sweep,
            dataset=sweep.dataset,
        )
        return sweep


@given(changed=changed_records())
@example(changed=("binary", RECORDS["binary"] | {"positive_label": 7}))
@example(changed=("binary", RECORDS["binary"] | {"points": {}}))
@example(changed=("binary", RECORDS["binary"] | {"points": []}))
@example(changed=("binary", RECORDS["several_classes"]))
@example(changed=("several_classes", RECORDS["binary"]))
@settings(max_examples=40, deadline=None)
def test_a_changed_record_is_shown_or_refused(changed):
    name, record = changed
    try:
        sweep = show(name, record)
    except InvalidInputError:
        return
    for point in sweep.points:
        for path in (PurePosixPath(point.predictions), PureWindowsPath(point.predictions)):
            assert not path.is_absolute()
            assert ".." not in path.parts


@given(content=any_json | any_json.map(lambda value: {"format_version": 1, "points": value}))
@settings(deadline=None)
def test_any_other_json_is_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("any") / "sweep.json"
    file.write_text(json.dumps(content))
    with pytest.raises(InvalidInputError):
        RatioSweep.load(file)


@pytest.mark.parametrize("field", ["precision", "tp", "seed", "ratio", "predictions", "recall_interval"])
@pytest.mark.parametrize("value", [None, math.nan, -1, "x", [], *PATHS[:4]])
def test_a_damaged_point_is_refused_by_its_number_and_its_field(tmp_path, field, value):
    if (field, value) in (("recall_interval", None), ("predictions", "x")):
        return  # these are valid
    record = copy.deepcopy(RECORDS["binary"])
    record["points"][1][field] = value
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    with pytest.raises(InvalidInputError, match=rf"points\[1\]\.{field}"):
        RatioSweep.load(tmp_path)
