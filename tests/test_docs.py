import os
import re
import subprocess
import sys

import pytest

import weighloss
from conftest import ROOT
from test_readme import PAGES, SNIPPETS


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages; warnings, such as a broken link, are errors."""
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_every_page_is_built_with_its_charts_and_needs_no_other_host(site):
    for page in PAGES:
        html = (site / f"{page}.html").read_text()
        for tag, source in re.findall(r"<(script|img)\b[^>]*\bsrc=\"([^\"]+)\"", html):
            assert (site / source).is_file(), f"{tag} of {page}: {source}"
        for sheet in re.findall(r"<link rel=\"stylesheet\" href=\"([^\"]+)\"", html):
            assert (site / sheet).is_file(), sheet


def test_the_reference_has_every_public_name_and_links_them(site):
    listed = re.findall(r"^::: weighloss\.(\w+)$", PAGES["reference"], re.M)
    assert sorted(listed) == sorted(weighloss.__all__)
    html = (site / "reference.html").read_text()
    inherited = "WeightedLossTrainer.weights_at"
    assert all(f'id="weighloss.{name}"' in html for name in (*listed, inherited))
    for linked in ("ClassWeights", "RatioSweep.choose", "Intervals"):  # in backticks in a docstring
        assert re.search(rf'href="#weighloss\.[\w.]*{linked}"><code>[\w.]*{linked}</code></a>', html), linked


def snippets(page):
    return re.findall(r"```python\n(.*?)```", PAGES[page], re.S)


def test_the_snippets_of_the_overview_are_in_the_readme_whose_test_runs_them():
    assert [snippet for snippet in snippets("index") if snippet in SNIPPETS] == snippets("index") != []


def test_every_loss_in_a_comment_is_the_value_of_its_line():
    namespace, checked = {}, 0
    for snippet in snippets("why_not_ten_lines"):
        exec(snippet, namespace)
        for line, figure in re.findall(r"^(.+)  # (\d\.\d+)", snippet, re.M):
            assert round(eval(line, namespace).item(), 4) == float(figure), line
            checked += 1
    assert checked == 5
