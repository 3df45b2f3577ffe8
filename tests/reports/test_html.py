import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from reports.browser import CHROMIUM, Page
from reports.test_compare_with_threshold import with_test_set
from results.sweeps import ARTICLE, GOLDEN, golden_sweep, make_point, make_sweep, write_leg, write_sweep
from weighloss import FailedLeg, InvalidInputError, RatioSweep, reports
from weighloss.reports.comparison import rule_cells
from weighloss.reports.html import write_report
from weighloss.reports.text import rows, rule_sentence
from weighloss.results.comparison import PAIR, compare

HOSTILE = "</script><img src=x onerror=document.title='broken'>{{ 7*7 }}'\"&"
ASKED = {
    "recall": lambda text: f"recall>={text}",
    "precision": lambda text: f"precision>={text}",
    "flagged": lambda text: f"flagged<={text.split()[0]}%",
    "cost": lambda text: f"cost fp=1 fn={text.split()[0]}",
    "f1": lambda text: "f1",
}


class Parsed(HTMLParser):
    """The elements of a page, what it says, and its data."""

    def __init__(self, file):
        super().__init__()
        self.elements, self.text, self.data, self._inside = [], "", None, None
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = "data" if dict(attrs).get("id") == "data" else tag

    def handle_data(self, data):
        if self._inside == "data":
            self.data = json.loads(data)
            self._inside = None
        elif self._inside not in ("script", "style"):
            self.text += data


def answers_of(data):
    """Requirement and answer for each value of each slider."""
    return [
        (ASKED[kind["name"]](value["text"]), data["answers"][value["answer"]] | {"miss": value["miss"]})
        for kind in data["kinds"]
        if kind["name"] != "asked"
        for value in kind["values"]
    ]


def agrees(answer, choice) -> bool:
    point = choice.point
    names = ("ratio", "precision", "recall", "precision_interval", "recall_interval")
    return all(answer[name] == getattr(point, name) for name in names) and choice.met == (not answer["miss"])


def test_the_page_is_one_file_that_asks_for_nothing_else(tmp_path):
    file = write_report(write_sweep(tmp_path), tmp_path / "new" / "folder")
    assert file == tmp_path / "new" / "folder" / "report.html"
    assert file.stat().st_size < 5_000_000
    page = Parsed(file)
    for _, attributes in page.elements:
        assert not attributes.keys() & {"src", "href", "action"}
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("name", ["binary", "several_labels", "several_classes", "three_seeds"])
def test_every_answer_on_the_page_is_that_of_choose(name, tmp_path):
    sweep = golden_sweep(name)
    found = answers_of(Parsed(write_report(sweep, tmp_path)).data)
    assert len(found) == (51 if name == "several_classes" else 137)
    for text, answer in found[::5]:
        choice = sweep.choose(text)
        assert agrees(answer, choice), (text, answer, str(choice))


def test_the_page_has_the_table_and_what_was_asked_for(tmp_path):
    sweep = write_sweep(tmp_path)
    page = Parsed(write_report(sweep, tmp_path, "recall>=0.9 and precision>=0.2"))
    for row in rows(sweep, "recall>=0.9 and precision>=0.2"):
        assert all(cell in page.text for cell in row)
    assert "as asked: recall>=0.9 and precision>=0.2" in page.text
    asked = page.data["answers"][page.data["kinds"][0]["values"][0]["answer"]]
    assert agrees(asked | {"miss": ""}, sweep.choose("recall>=0.9 and precision>=0.2"))


def test_the_page_compares_the_four_rules_and_says_what_holds_on_the_test_data(tmp_path):
    sweep = with_test_set(tmp_path)
    page = Parsed(write_report(sweep, tmp_path, "recall>=0.9"))
    compared = compare(sweep, "recall>=0.9")
    table = page.text[page.text.index("evaluation data, on which they were chosen") : page.text.index("All trained")]
    rows_of_table = iter(line for line in table.replace("\n(", " (").splitlines() if line[:1].islower())
    for data, rules in (("evaluation data, on", compared.rules), ("test data, on", compared.on_test)):
        assert next(rows_of_table).startswith(data)
        for name, rule in rules.items():
            w_r, threshold, precision, recall, flagged = rule_cells(rule, sweep.task)
            assert next(rows_of_table) == name + precision + recall + flagged + w_r + threshold
    assert not list(rows_of_table)
    for line in reports.compare_with_threshold(sweep, "recall>=0.9").splitlines()[9:]:
        assert line in page.text
    assert f"nothing was chosen. {rule_sentence(sweep, compared.on_test[PAIR])}" in page.text


def test_without_an_unweighted_leg_or_test_data_the_rules_that_there_are_are_compared(tmp_path):
    sweep = write_sweep(tmp_path)
    alone = dataclasses.replace(sweep, points=sweep.points[1:], ratios=[7.0])
    text = Parsed(write_report(alone, tmp_path, "recall>=0.9")).text
    assert "best ratio and threshold" in text
    assert not any(words in text for words in ("unweighted, best threshold", "worth it here", "test data"))
    assert "Ratio, threshold, or both?" not in Parsed(write_report(alone, tmp_path, "break-even")).text


def test_a_value_that_no_pair_reaches_is_named_and_the_nearest_pair_shown(tmp_path):
    labels = (np.arange(400) % 8 == 7).astype(int)  # at no threshold a larger part than an eighth is positive
    make_sweep([write_leg(tmp_path, 1.0, np.linspace(5, -5, 400), labels)]).save(tmp_path)
    sweep = RatioSweep.load(tmp_path)
    found = dict(answers_of(Parsed(write_report(sweep, tmp_path)).data))
    missed = {text: answer for text, answer in found.items() if not sweep.choose(text).met}
    assert {f"precision>={share:.2f}" for share in (0.5, 0.99)} <= missed.keys()
    for answer in missed.values():
        assert answer["miss"].startswith("No pair of ratio and threshold meets “")


def test_curves_are_thinned_but_keep_their_ends(tmp_path):
    sweep = write_sweep(tmp_path, size=20_000)
    for leg in Parsed(write_report(sweep, tmp_path)).data["legs"]:
        assert 100 < len(leg["recall"]) <= 300
        assert leg["recall"][-1] == 1
        assert leg["recall"] == sorted(leg["recall"])


def test_names_from_the_data_are_shown_as_they_are_and_never_run(tmp_path):
    names = {"label_names": ["ham", HOSTILE], "dataset": HOSTILE, "model": HOSTILE}
    sweep = dataclasses.replace(write_sweep(tmp_path), **names)
    file = write_report(sweep, tmp_path)
    page = Parsed(file)
    assert {tag for tag, _ in page.elements}.isdisjoint({"img", "iframe", "object"})
    assert sum(tag == "script" for tag, _ in page.elements) == file.read_text().count("</script") == 3
    assert page.text.count(HOSTILE) >= 3
    assert f"flagged as {HOSTILE}" in page.data["answers"][0]["text"]


def test_without_predictions_there_are_charts_and_table_and_a_reason_why_no_slider(tmp_path):
    failed = (FailedLeg(20.0, 42, "no memory", 3),)
    sweep = make_sweep([*ARTICLE, make_point(20.0, 1, 1, 1, 1)][:5], failed=failed)
    page = Parsed(write_report(sweep, tmp_path))
    assert "there is no slider" in page.text
    assert "Ratio, threshold, or both?" not in page.text
    assert not any(tag == "input" for tag, _ in page.elements)
    assert [kind["name"] for kind in page.data["kinds"]] == ["asked"]
    assert page.data["legs"] == []
    assert page.data["missing"] == [20.0]
    assert page.data["empty"] == [0.07]


def test_a_sweep_that_learned_nothing_is_shown_too(tmp_path):
    page = Parsed(write_report(make_sweep([make_point(1.0, 0, 0, 20, 80)]), tmp_path))
    assert page.data["kinds"] == []
    assert "No leg is better than calling everything positive" in page.text


def test_a_sweep_without_a_finished_leg_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="no finished leg"):
        reports.write_report(make_sweep([], ratios=[1.0]), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_in_a_browser_the_requirement_moves_by_keyboard_and_the_sentence_is_that_of_choose(tmp_path):
    sweep = golden_sweep("binary")
    file = write_report(sweep, tmp_path)
    with Page(tmp_path) as page:
        page.open(file)
        sentence = "document.getElementById('sentence').textContent"
        asked = page.run(sentence)
        page.press("Tab")  # to the kinds
        page.press("ArrowRight")  # to "recall at least"
        page.press("Tab")  # to the slider
        assert page.run("document.activeElement.id") == "slider"
        page.press("Home")
        page.press("ArrowRight")
        assert page.run("slider.getAttribute('aria-valuetext')") == "recall at least 0.51"
        assert says(page.run(sentence), sweep.choose("recall>=0.51"))
        page.press("End")
        assert page.run(sentence) != asked
        assert says(page.run(sentence), sweep.choose("recall>=0.99"))
        page.wait_for(f"views.plane.data('chosen')[0].recall === {sweep.choose('recall>=0.99').point.recall!r}")
        assert page.run("views.ratios.data('chosen').length") == 2
        assert page.run("document.querySelectorAll('.chart svg').length") == 2

        for width in (390, 1280):
            page.open(file, width, dark=width == 390)
            assert page.run("document.documentElement.scrollWidth") <= width  # nothing is cut off
            assert page.run("document.querySelectorAll('.rules tbody tr').length") == 5
            if width == 390:  # what does not fit is reached by keyboard, beside the names of the rows
                page.run("document.querySelector('.scroll').focus()")
                page.press("ArrowRight")
                page.wait_for("document.querySelector('.scroll').scrollLeft > 0")
                left = "document.querySelector('.rules th[scope=row]').getBoundingClientRect().left"
                assert page.run(left) >= 0
        assert {address.partition(":")[0] for address in page.requests} == {"file"}
        assert set(page.requests) == {file.resolve().as_uri()}
        assert page.errors == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize(
    "name", ["several_labels", "several_classes", "three_seeds", "no predictions", "hostile", "test data"]
)
def test_a_browser_draws_every_kind_of_sweep_without_an_error(name, tmp_path):
    if name == "no predictions":
        (tmp_path / "sweep.json").write_bytes((GOLDEN / "binary" / "sweep.json").read_bytes())
        sweep = RatioSweep.load(tmp_path)
    elif name == "hostile":
        names = {"label_names": ["ham", HOSTILE], "dataset": HOSTILE, "model": HOSTILE}
        sweep = dataclasses.replace(write_sweep(tmp_path), **names)
    elif name == "test data":
        sweep = with_test_set(tmp_path)
    else:
        sweep = golden_sweep(name)
    file = write_report(sweep, tmp_path)
    with Page(tmp_path) as page:
        page.open(file)
        for kind in page.run("radios.map(radio => radio.value)"):
            page.run(f"document.querySelector('input[value={kind}]').click()")
            page.run("Promise.all(Object.values(views).map(view => view.runAsync())).then(() => true)")
        assert page.run("document.querySelectorAll('.chart svg').length") == 2
        assert page.run("document.images.length") == 0
        assert page.run("document.title") != "broken"
        assert page.errors == []
        assert set(page.requests) == {file.resolve().as_uri()}


def says(sentence: str, choice) -> bool:
    """Whether a sentence names the ratio, the threshold, precision and recall of a choice, and whether it is met."""
    point = choice.point
    numbers = re.search(
        r", (\d+) are spam.*, (\d+) are found.* This is w_r = (\S+) with (?:no change|the threshold (\S+))", sentence
    )
    assert numbers, sentence
    expected = [f"{point.ratio:.3g}", f"{point.threshold:.3g}"]
    found = [numbers[3], numbers[4] or "0", int(numbers[1]), int(numbers[2])]
    met = not sentence.startswith("No pair")
    return [*found, met] == [*expected, *np.round([100 * point.precision, 100 * point.recall]), choice.met]
