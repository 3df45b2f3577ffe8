"""The tables and charts of docs/study.md, from the finished sweeps of study.py.

    python benchmarks/study.py --tables

Ratio and threshold are chosen on the evaluation data, for each seed alone, and measured on the test data. A cell is the
mean over three seeds, with the lowest and the highest in brackets.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.metrics import average_precision_score, f1_score

from study_data import DATA_SETS
from weighloss import ClassWeights, RatioSweep, SweepPoint, calibrated_logits
from weighloss.results.choice import choose
from weighloss.results.comparison import compare
from weighloss.results.files import of_split
from weighloss.results.metrics import Confusion, confusion, expected_calibration_error
from weighloss.results.operating_point import OperatingPoint
from weighloss.results.requirement import Requirement
from weighloss.weighting.task import Task

REQUIREMENTS = ("recall>=0.9", "recall>=0.95", "precision>=0.9", "f1")
MULTIPLES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the natural ratio
FEW = {
    "unweighted alone": (None,),
    "unweighted, natural": (None, 1.0),
    "unweighted, natural, natural x 5 (`--quick`)": (None, 1.0, 5.0),
    "natural / 5, natural, natural x 5": (0.2, 1.0, 5.0),
    "natural / 10 to natural x 10: 8": (0.1, 0.215, 0.464, None, 1.0, 2.15, 4.64, 10.0),
}
SHIFTED = "WordNet, persons: proper names"


def load(folder: Path, which: str = "sweep") -> dict[str, RatioSweep]:
    """The finished sweeps, by title; the two kinds of test data of a data set as two."""
    sweeps = {}
    for name, data_set in DATA_SETS.items():
        if not (folder / name / which).exists():
            continue
        sweep = RatioSweep.load(folder / name / which)
        sweeps[data_set.title] = sweep
        if data_set.shifted is not None:
            size = data_set.sizes[2]
            sweeps[data_set.title] = _with_test_rows(sweep, slice(0, size))
            sweeps[SHIFTED] = _with_test_rows(sweep, slice(size, None))
    return sweeps


def _with_test_rows(sweep: RatioSweep, rows: slice) -> RatioSweep:
    folder = Path(tempfile.mkdtemp())
    shutil.copytree(sweep.folder, folder, dirs_exist_ok=True)
    for point in sweep.points:
        file = folder / of_split(point.predictions, "test")
        table = pq.read_table(file)
        start, stop, _ = rows.indices(len(table))
        pq.write_table(table.slice(start, stop - start), file)
    return RatioSweep.load(folder)


def is_binary(sweep: RatioSweep) -> bool:
    """Whether there are two classes."""
    return sweep.task is Task.BINARY


def per_seed(sweep: RatioSweep) -> Iterator[RatioSweep]:
    """One sweep for each seed."""
    for seed in sweep.seeds:
        points = tuple(point for point in sweep.points if point.seed == seed)
        yield replace(sweep, points=points, seeds=[seed], operating_point=None)


def leg_at(sweep: RatioSweep, multiple: float | None) -> SweepPoint:
    """The leg nearest to a multiple of the natural ratio; None is the unweighted leg."""
    ratio = 1.0 if multiple is None else sweep.natural_ratio * multiple
    return min(sweep.points, key=lambda point: abs(np.log(point.ratio / ratio)))


def log_odds(sweep: RatioSweep, leg: SweepPoint, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Whether each item is positive, and its log-odds."""
    logits, labels = sweep.predictions(leg, split)
    positive = sweep.positive_label
    return labels == positive, logits[:, positive].astype(float) - logits[:, 1 - positive]


def of_seeds(values: Sequence[float], form: str = ".3f") -> str:
    """Mean, lowest and highest."""
    return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown."""
    print(f"\n### {title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def crossings(sweeps: dict[str, RatioSweep]) -> None:
    """(a) Extremes and crossing, on the evaluation data."""
    rows = []
    for title, sweep in sweeps.items():
        if title == SHIFTED:
            continue
        cells = [title, f"{sweep.natural_ratio:.3g}"]
        for multiple in (0.01, 1.0, 100.0):
            legs = [leg_at(of_seed, multiple) for of_seed in per_seed(sweep)]
            cells += [
                f"{of_seeds([leg.precision for leg in legs], '.2f')} / {of_seeds([leg.recall for leg in legs], '.2f')}"
            ]
        found = [of_seed.break_even() for of_seed in per_seed(sweep)]
        cells.append(
            ", ".join("nowhere" if ratio is None else f"{ratio / sweep.natural_ratio:.2g}" for ratio in found)
        )
        rows.append(cells)
    head = ["data", "natural ratio", "natural / 100", "natural", "natural x 100", "crossing / natural, each seed"]
    print_table("Precision / recall at argmax, and where they cross", head, rows)


def average_precisions(sweeps: dict[str, RatioSweep]) -> dict[str, np.ndarray]:
    """(b) Average precision of every leg: arrays of shape (n_seeds, n_ratios)."""
    values, rows = {}, []
    for title, sweep in sweeps.items():
        if is_binary(sweep):
            values[title] = np.array(
                [[average_precision_score(*log_odds(s, leg)) for leg in s.points] for s in per_seed(sweep)]
            )
            columns = [sweep.ratios.index(leg_at(sweep, m).ratio) for m in (*MULTIPLES[:2], None, *MULTIPLES[2:])]
            rows.append([title, *(of_seeds(values[title][:, column]) for column in columns)])
    head = ["data", "natural / 100", "natural / 10", "w_r = 1", "natural", "natural x 10", "natural x 100"]
    print_table("Average precision", head, rows)
    return values


def met_and_objective(wanted: Requirement, found: Sequence[Confusion | OperatingPoint]) -> str:
    """How often the requirement is met, what is missing on average, and the mean of what is to be high."""
    objective = np.mean([wanted.objective_of(counts) for counts in found])
    if not wanted.bounds:
        return f"{objective:.3f}"
    ((name, least),) = wanted.bounds
    missing = [max(0.0, least - getattr(counts, name)) for counts in found]
    return f"{sum(m == 0 for m in missing)} of {len(found)}, {np.mean(missing):.3f}, {objective:.3f}"


def four_rules(sweeps: dict[str, RatioSweep]) -> dict[tuple[str, str], list]:
    """(c) The rows of `compare_with_threshold`, chosen on the evaluation data and measured on the test data."""
    differences: dict[tuple[str, str], list] = {}
    rules: dict[tuple[str, str], list[list]] = {}
    for title, sweep in sweeps.items():
        for text in REQUIREMENTS:
            if not is_binary(sweep) and text != "f1":
                continue
            compared = [compare(of_seed, text) for of_seed in per_seed(sweep)]
            differences[title, text] = [(c.difference, c.difference_interval) for c in compared]
            for name in compared[0].on_test:
                rules.setdefault((title, name), []).append([c.on_test[name] for c in compared])
    rows = []
    for (title, name), found in rules.items():
        wanted = [Requirement.parse(text) for text in REQUIREMENTS[-len(found) :]]
        cells = [met_and_objective(w, f) for w, f in zip(wanted, found, strict=True)]
        rows.append([title, name, *[""] * (len(REQUIREMENTS) - len(cells)), *cells])
    print_table("Four rules on new data: met, missing, objective", ["data", "rule", *REQUIREMENTS], rows)
    rows = []
    for title in sweeps:
        cells = [title]
        for text in REQUIREMENTS:
            found = differences.get((title, text))
            beyond = found and sum(low > 0 for _, (low, _) in found) - sum(high < 0 for _, (_, high) in found)
            cells.append(f"{of_seeds([d for d, _ in found], '+.3f')}, {beyond:+d}" if found else "")
        rows.append(cells)
    print_table(
        "Pair minus the threshold of the unweighted leg, and seeds beyond the noise", ["data", *REQUIREMENTS], rows
    )
    return differences


def several_classes(sweeps: dict[str, RatioSweep], longer: dict[str, RatioSweep]) -> None:
    """Does log w, added to the logits of the unweighted leg, get where the weighted loss gets?"""
    rows = []
    for epochs, finished in (("1", sweeps), ("3", longer)):
        for title, sweep in finished.items():
            if sweep.task is not Task.MULTICLASS:
                continue
            scores = [macro_f1(of_seed) for of_seed in per_seed(sweep)]
            rows.append([title, epochs, *(of_seeds([s[name] for s in scores]) for name in scores[0])])
            names = list(scores[0])
    if rows:
        print_table("Macro F1 of several classes", ["data", "epochs", *names], rows)


def macro_f1(sweep: RatioSweep) -> dict[str, float]:
    """Macro F1 on the test data, by rule; what is chosen is chosen on the evaluation data."""
    unweighted, natural = leg_at(sweep, None), leg_at(sweep, 1.0)
    log_weights = np.log(ClassWeights.from_counts(sweep.counts).weights)
    wanted = Requirement.parse("f1")
    rules = {
        "w_r = 1": (unweighted, 0.0),
        "w_r = 1, log w added": (unweighted, -log_weights),
        "w_r = 1, best r'": choose(sweep, wanted, legs=[unweighted]).point,
        "natural": (natural, 0.0),
        "best ratio": choose(sweep, wanted, "argmax").point,
        "best ratio and r'": choose(sweep, wanted).point,
    }
    scores = {}
    for name, rule in rules.items():
        leg, threshold = rule if isinstance(rule, tuple) else (rule.leg, rule.threshold)
        logits, labels = sweep.predictions(leg, "test")
        predicted = (logits - np.asarray(threshold)).argmax(-1)
        scores[name] = float(f1_score(labels, predicted, average="macro", zero_division=0))
    return scores


def fades(sweeps: dict[str, RatioSweep], longer: dict[str, RatioSweep]) -> None:
    """(d) One epoch against three: how far apart are the legs at natural / 10 and natural x 10?"""
    rows = []
    for title in longer:
        if title == SHIFTED or not is_binary(longer[title]):
            continue
        for epochs, sweep in (("1", sweeps[title]), ("3", longer[title])):
            measured = []
            for of_seed in per_seed(sweep):
                little, much = leg_at(of_seed, 0.1), leg_at(of_seed, 10.0)
                apart = log_odds(of_seed, much, "evaluation")[1] - log_odds(of_seed, little, "evaluation")[1]
                ranked = [average_precision_score(*log_odds(of_seed, leg_at(of_seed, m))) for m in (None, 1.0)]
                measured.append((float(np.mean(apart)) / np.log(100), little.recall, much.recall, *ranked))
            rows.append([title, epochs, *(of_seeds(values, ".2f") for values in zip(*measured, strict=True))])
    head = [
        "data", "epochs", "shift / log 100", "recall at natural / 10", "recall at natural x 10",
        "average precision, w_r = 1", "average precision, natural",
    ]  # fmt: skip
    print_table("Do the weights fade?", head, rows)


def calibration(sweeps: dict[str, RatioSweep]) -> None:
    """(e) Brier score and calibration error before and after `calibrated_logits`."""
    rows = []
    for title, sweep in sweeps.items():
        if not is_binary(sweep):
            continue
        for what, multiple in (("w_r = 1", None), ("natural", 1.0), ("natural x 10", 10.0)):
            errors = []
            for of_seed in per_seed(sweep):
                leg = leg_at(of_seed, multiple)
                logits, labels = of_seed.predictions(leg, "test")
                positives = labels == sweep.positive_label
                weights = ClassWeights.from_counts(sweep.counts, leg.ratio, sweep.positive_label).weights
                for given in (torch.tensor(logits), calibrated_logits(torch.tensor(logits), torch.tensor(weights))):
                    probabilities = given.double().softmax(-1)[:, sweep.positive_label].numpy()
                    errors += [
                        np.mean((probabilities - positives) ** 2),
                        expected_calibration_error(probabilities, positives),
                    ]
            rows.append([title, what, *(of_seeds(errors[i::4]) for i in range(4))])
    head = ["data", "leg", "Brier", "calibration error", "Brier, calibrated", "calibration error, calibrated"]
    print_table("Calibration", head, rows)


def recipes(folder: Path) -> None:
    """(f) The weighted loss of the documentation in micro-batches of one."""
    rows = []
    for name, data_set in DATA_SETS.items():
        if (folder / name / "recipe.json").exists():
            runs = json.loads((folder / name / "recipe.json").read_text())
            for kind, accumulation in dict.fromkeys((run["trainer"], run["accumulation"]) for run in runs):
                of = [run for run in runs if (run["trainer"], run["accumulation"]) == (kind, accumulation)]
                scores = [of_seeds([run[metric] for run in of]) for metric in ("precision", "recall")]
                rows.append([data_set.title, kind, f"{16 // accumulation} x {accumulation}", *scores])
    print_table(
        "Steps of 16 examples, at the natural ratio",
        ["data", "trainer", "micro-batch x accumulation", "precision", "recall"],
        rows,
    )


def few_ratios(sweeps: dict[str, RatioSweep]) -> None:
    """(g) Choose among fewer legs."""
    found: dict[str, dict[str, list]] = {name: {text: [] for text in REQUIREMENTS} for name in [*FEW, "all 14"]}
    for title, sweep in sweeps.items():
        if not is_binary(sweep) or title == SHIFTED:
            continue
        for of_seed in per_seed(sweep):
            for name, few in [*FEW.items(), ("all 14", None)]:
                legs = (
                    of_seed.points
                    if few is None
                    else list({leg_at(of_seed, m).ratio: leg_at(of_seed, m) for m in few}.values())
                )
                for text in REQUIREMENTS:
                    rule = choose(of_seed, Requirement.parse(text), legs=legs).point
                    found[name][text].append(of_seed.at_threshold(rule.leg, rule.threshold, "test"))
    rows = [
        [name, *(met_and_objective(Requirement.parse(text), points) for text, points in by_text.items())]
        for name, by_text in found.items()
    ]
    print_table("Few ratios, over all data sets and seeds: met, missing, objective", ["legs", *REQUIREMENTS], rows)


def predicted_chart(sweeps: dict[str, RatioSweep]) -> None:
    """The chart from four legs: their log-odds, shifted by log w_r and mixed, against the legs between them."""
    rows = []
    for title, sweep in sweeps.items():
        if not is_binary(sweep) or title == SHIFTED:
            continue
        errors: dict[str, list[float]] = {"shifted and mixed": [], "straight lines": []}
        for of_seed in per_seed(sweep):
            known = [leg_at(of_seed, m) for m in (0.01, 0.2, 5.0, 100.0)]
            for leg in of_seed.points:
                if leg in known:
                    continue
                right = next(i for i, other in enumerate(known) if other.ratio > leg.ratio)
                one, other = known[right - 1], known[right]
                share = np.log(leg.ratio / one.ratio) / np.log(other.ratio / one.ratio)
                positives, scores = log_odds(of_seed, one, "evaluation")
                scores = (1 - share) * (scores + np.log(leg.ratio / one.ratio))
                scores = scores + share * (log_odds(of_seed, other, "evaluation")[1] + np.log(leg.ratio / other.ratio))
                guess = confusion((scores > 0).astype(int), positives.astype(int), [1])
                for metric in ("precision", "recall"):
                    measured = getattr(leg, metric)
                    errors["shifted and mixed"].append(abs(float(getattr(guess, metric)) - measured))
                    line = (1 - share) * getattr(one, metric) + share * getattr(other, metric)
                    errors["straight lines"].append(abs(line - measured))
        rows.append([title, *(f"{np.mean(e):.3f} (at most {max(e):.2f})" for e in errors.values())])
    print_table("The chart from four legs: error of precision and recall at the other ten", ["data", *errors], rows)


def draw_curves(sweeps: dict[str, RatioSweep], file: Path) -> None:
    """Precision and recall against the ratio, a panel for each data set."""
    shown = {title: sweep for title, sweep in sweeps.items() if title != SHIFTED}
    figure, axes = plt.subplots(2, 4, figsize=(14, 6.4), sharey=True, layout="constrained")
    for panel, (title, sweep) in zip(axes.flat, shown.items(), strict=False):
        for metric, style, colour in (("precision", "-", "#0072B2"), ("recall", "--", "#D55E00")):
            values = np.array([[getattr(point, metric) for point in s.points] for s in per_seed(sweep)])
            x = np.array(sweep.ratios) / sweep.natural_ratio
            panel.plot(x, values.mean(axis=0), style, color=colour, label=metric)
            panel.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
        panel.axvline(1, color="grey", linewidth=0.8, linestyle=":")
        panel.set(xscale="log", title=title, ylim=(0, 1.02))
        panel.title.set_fontsize(10)
    figure.supxlabel("weight ratio / natural ratio", fontsize=10)
    axes[0, 0].legend(loc="lower left", frameon=False)
    for panel in axes.flat[len(shown) :]:
        panel.axis("off")
    figure.savefig(file, dpi=110)


def draw_differences(differences: dict[tuple[str, str], list], file: Path) -> None:
    """Pair minus threshold, with an interval for each seed."""
    figure, axes = plt.subplots(1, len(REQUIREMENTS), figsize=(14, 4), sharey=True, layout="constrained")
    titles = list(dict.fromkeys(title for title, _ in differences))
    for panel, text in zip(axes, REQUIREMENTS, strict=True):
        for row, title in enumerate(titles):
            for i, (difference, (low, high)) in enumerate(differences.get((title, text), [])):
                y = -row + (1 - i) * 0.2
                panel.plot([low, high], [y, y], color="#0072B2", linewidth=1)
                panel.plot(difference, y, "o", color="#0072B2", markersize=4)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set(title=text, yticks=-np.arange(len(titles)), yticklabels=titles)
        panel.title.set_fontsize(10)
    figure.supxlabel("what ratio and threshold together gain over the threshold alone", fontsize=10)
    figure.savefig(file, dpi=110)


def write_tables(folder: Path, charts: Path) -> None:
    """Print every table, and draw the charts."""
    sweeps = load(folder)
    crossings(sweeps)
    average_precisions(sweeps)
    differences = four_rules(sweeps)
    longer = load(folder, "three_epochs")
    several_classes(sweeps, longer)
    fades(sweeps, longer)
    calibration(sweeps)
    recipes(folder)
    few_ratios(sweeps)
    predicted_chart(sweeps)
    draw_curves(sweeps, charts / "study_curves.png")
    draw_differences(differences, charts / "study_differences.png")
