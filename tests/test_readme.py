import re
import shlex
import subprocess
import sys

import pytest
from transformers import TrainingArguments

import test_distributed as distributed
import test_where_it_works as where
from conftest import ROOT, collate, make_data, make_model, quiet_args
from test_scripts import CHARTS, spam_file  # noqa: F401 — a fixture
from weighloss import RatioSweep

README = (ROOT / "README.md").read_text()
PAGES = {page.stem: page.read_text() for page in sorted(ROOT.glob("docs/*.md"))}
# The overview repeats the README; the snippets of the other are its own, and test_docs.py runs them.
GUIDES = [README, *(text for name, text in PAGES.items() if name not in ("index", "why_not_ten_lines"))]
COMMANDS = "\n".join(re.findall(r"```bash\n(.*?)```", "".join(GUIDES), re.S)).replace("\\\n", " ").split("\n")
SNIPPETS = re.findall(r"```python\n(.*?)```", "".join(GUIDES), re.S)


def commands(start: str) -> list[str]:
    found = [re.sub(" +", " ", line.split("#")[0]).strip() for line in COMMANDS if line.strip().startswith(start)]
    assert found, f"README and pages have no command that starts with {start}"
    return found


def test_every_python_snippet_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model().save_pretrained("model")
    namespace = {
        "model": make_model(),
        "model_name": "model",
        "args": TrainingArguments("out", **quiet_args(per_device_train_batch_size=32)),
        "train": make_data(96, 0),
        "validation": make_data(64, 1),
        "data_collator": collate,
    }
    assert len(SNIPPETS) >= 7
    for snippet in SNIPPETS:
        if "from_hub" not in snippet:  # that one and the Hub's commands: test_hub.py
            exec(snippet, namespace)
    assert len(RatioSweep.load("out").points) == 14
    assert all((tmp_path / "out" / chart).exists() for chart in CHARTS)


def test_every_script_command_runs(run_script, spam_file, small_model, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spam.csv").write_text((ROOT / spam_file).read_text())
    scripts = commands("python scripts/")
    assert {command.split()[1] for command in scripts} == {
        f"scripts/{file.name}" for file in ROOT.glob("scripts/*.py")
    }
    for command in scripts:
        if "hub_model_id" in command:
            continue
        script, *flags = shlex.split(command.removeprefix("python scripts/"))
        small = ["--model_name_or_path", small_model, "--max_train_samples", 64] if "plot" not in script else []
        printed = run_script(script, *flags, *small)
        assert ("On the evaluation data" if script == "train.py" else "x natural") in printed, printed


@pytest.mark.slow
def test_make_demo_runs_on_the_built_in_data_and_model(tmp_path, minilm):
    assert "make demo" in commands("make")
    small = "--max_train_samples 64 --max_eval_samples 50 --num_ratios 2"
    run = subprocess.run(
        ["make", "demo", f"OUT={tmp_path / 'demo'}", f"FLAGS={small}", "-o", ".venv/installed", f"BIN={sys.prefix}/bin"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    sweep = RatioSweep.load(tmp_path / "demo")
    assert sweep.model == "sentence-transformers/all-MiniLM-L6-v2"
    assert sweep.positive_name == "scikit-learn"
    assert len(sweep.points) == len(sweep.ratios) == 4
    assert all((tmp_path / "demo" / chart).exists() for chart in CHARTS)


def test_make_runs_what_the_readme_names_without_make():
    makefile = (ROOT / "Makefile").read_text()
    assert "make test" in commands("make")
    for command in commands(".venv/bin/"):
        recipe = command.replace(".venv/bin/", "$(BIN)/").replace("pip install", "pip install --quiet")
        assert recipe in re.sub(r" \\\n\s+", " ", makefile).replace("$(OUT)", "demo"), command


def test_the_table_of_where_it_works_names_every_test_of_it_and_no_other():
    rows = re.findall(r"^\| (\w+) \| (`.*`) \|$", PAGES["where_it_works"], re.M)
    claims = {f"{axis}-{value}" for axis, values in rows for value in re.findall(r"`(\w+)`", values)}
    functions = [name.removeprefix("test_") for module in (where, distributed) for name in vars(module)]
    named = {name.replace("_", "-", 1) for name in functions if name.split("_")[0] in dict(rows)}
    assert claims == named | set(where.MODES) | set(where.SWEPT)


def test_every_link_and_chart_of_the_readme_is_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("https://")]
    assert sum(link.endswith(".png") for link in links) >= 3
    for link in links:
        assert (ROOT / link).is_file(), link
