import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_distributed as distributed
import test_where_it_works as where
from datasets import Dataset
from transformers import TrainingArguments

from conftest import ROOT, collate, make_data, make_model, quiet_args
from loopback_hub import LoopbackHub
from weighloss import RatioSweep
from weighloss.cli.main import main

README = (ROOT / "README.md").read_text()
PAGES = {page.stem: page.read_text() for page in sorted(ROOT.glob("docs/*.md"))}
# The overview repeats the README; the tutorial and the other page are run on their own, here and in test_docs.py.
GUIDES = [README, *(text for name, text in PAGES.items() if name not in ("index", "tutorial", "why_not_ten_lines"))]
COMMANDS = "\n".join(re.findall(r"```bash\n(.*?)```", "".join(GUIDES), re.S)).replace("\\\n", " ").split("\n")
SNIPPETS = re.findall(r"```python\n(.*?)```", "".join(GUIDES), re.S)
TOKEN = "hf_nobodyMaySee"
CHARTS = ["precision_recall.png", "precision_recall.svg", "precision_recall_plane.png", "precision_recall_plane.svg"]
CHARTS += ["report.html"]


def commands(start: str) -> list[str]:
    found = [re.sub(" +", " ", line.split("#")[0]).strip() for line in COMMANDS if line.strip().startswith(start)]
    assert found, f"README and pages have no command that starts with {start}"
    return found


@pytest.fixture
def folder_with_spam(tmp_path, monkeypatch):
    """Working directory with a file spam.csv."""
    generator = np.random.default_rng(0)
    labels = ["spam" if i % 8 == 0 else "ham" for i in range(160)]
    words = {"spam": ["win", "free", "prize", "cash"], "ham": ["lunch", "home", "later", "train"]}
    texts = [" ".join(generator.choice(words[label], 6)) + f" {i}" for i, label in enumerate(labels)]
    Dataset.from_dict({"sms": texts, "label": labels}).to_csv(tmp_path / "spam.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    assert len(SNIPPETS) >= 6
    for snippet in SNIPPETS:
        if "from_hub" not in snippet:  # another test runs that one and the commands for the Hub
            exec(snippet, namespace)
    assert len(RatioSweep.load("out").points) == 8
    assert all((tmp_path / "out" / chart).exists() for chart in CHARTS)


def test_every_command_runs(folder_with_spam, small_model, capsys):
    lines = commands("weighloss ")
    assert {line.split()[1] for line in lines} == {"sweep", "train", "plot", "push"}
    for line in lines:
        if "hub_model_id" in line:
            continue
        _, command, *flags = shlex.split(line)
        small = ["--model_name_or_path", small_model, "--max_train_samples", "64"] if command != "plot" else []
        main([command, *flags, *small])
        printed = capsys.readouterr().out
        assert ("On the evaluation data" if command == "train" else "x natural") in printed, printed


@pytest.mark.slow
def test_the_command_for_several_processes_runs(folder_with_spam, small_model):
    (line,) = commands("torchrun ")
    small = ["--model_name_or_path", small_model, "--max_train_samples", "64", "--use_cpu", "True"]
    run = subprocess.run([f"{sys.prefix}/bin/{line.split()[0]}", *shlex.split(line)[1:], *small], check=False)
    assert run.returncode == 0
    assert len(RatioSweep.load("spam_torchrun").points) == 4


@pytest.mark.slow
def test_the_commands_and_the_snippet_for_the_hub_run(folder_with_spam, small_model):
    with LoopbackHub(tokens={TOKEN: "user"}) as hub:
        files = {file.name: file.read_bytes() for file in Path(small_model).iterdir()}
        hub.add("distilbert/distilbert-base-uncased", files)
        hub.add("datasets/ucirvine/sms_spam", {"train.csv": Path("spam.csv").read_bytes()})  # one split, as there
        sweep, push = (line for line in commands("weighloss ") if "hub_model_id" in line)
        (snippet,) = (snippet for snippet in SNIPPETS if "from_hub" in snippet)
        small = "--output_dir spam_sweep --ratios 1 9 --max_train_samples 64"
        code = "from weighloss.cli.main import main\n"
        code += "".join(f"main({shlex.split(line)[1:]!r})\n" for line in (f"{sweep} {small}", push)) + snippet
        environment = hub.env(folder_with_spam, TOKEN) | {"OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        pushed = hub.files("user/spam")
        assert not [name for name in pushed if name.startswith("predictions")]
        assert Path("redrawn", "precision_recall.png").read_bytes() == pushed["precision_recall.png"]


@pytest.mark.slow
def test_the_tutorial_runs_from_top_to_bottom(folder_with_spam, small_model):
    Path("spam.csv").rename("messages.csv")
    code = "from weighloss.cli.main import main\n"
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", PAGES["tutorial"], re.S):
        if language == "python":
            code += block
            continue
        (line,) = block.replace("\\\n", " ").strip().split("\n")
        program, *words = shlex.split(line)
        assert program == "weighloss"
        small = ["--model_name_or_path", small_model] if "--train_file" in words else []
        code += f"main({[*words, *small]!r})\n"
    with LoopbackHub(tokens={TOKEN: "user"}) as hub:
        environment = hub.env(folder_with_spam, TOKEN) | {"OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", code + "print(classify('win a free prize'))"],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert {"model.safetensors", "README.md", "report.html", "sweep.json"} <= hub.files("user/spam").keys()
    assert re.search(r"\[\{'label': '(spam|ham)', 'score': 0\.\d+\}\]$", run.stdout)
    assert "For recall>=0.9 " in run.stdout
    assert Path("precise", "report.html").exists()
    assert RatioSweep.load("spam_sweep").requirement == "precision>=0.95"


@pytest.mark.slow
def test_make_demo_runs_on_the_built_in_data_and_model(tmp_path, minilm):
    assert "make demo" in commands("make")
    small = "--max_train_samples 32 --max_eval_samples 25 --max_seq_length 16 --num_ratios 2"
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
    rows = re.findall(r"^\| (\w+) \| (`.*`) \|$", PAGES["where_it_works"].split("## In a sweep")[0], re.M)
    claims = {f"{axis}-{value}" for axis, values in rows for value in re.findall(r"`(\w+)`", values)}
    functions = [name.removeprefix("test_") for module in (where, distributed) for name in vars(module)]
    named = {name.replace("_", "-", 1) for name in functions if name.split("_")[0] in dict(rows)}
    assert claims == named | set(where.MODES) | set(where.SWEPT)


def test_every_test_of_legs_that_where_it_works_names_exists():
    table = PAGES["where_it_works"].split("## In a sweep")[1].split("\n## ")[0]
    names = re.findall(r"\| `(\w+)` \|$", table, re.M)
    assert len(names) >= 10
    functions = "\n".join(file.read_text() for file in ROOT.glob("tests/sweep/test_*.py"))
    assert [name for name in names if not re.search(rf"^def test_{name}", functions, re.M)] == []


def test_every_link_and_chart_of_the_readme_is_there():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("https://")]
    assert any(link.endswith(".png") for link in links)
    for link in links:
        assert (ROOT / link).is_file(), link
