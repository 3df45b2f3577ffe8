"""Every example runs unchanged, on little data and with a small model: one test with the name of each file."""

import ast
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, ViTForImageClassification, pipeline

from conftest import ROOT, make_model
from weighloss import RatioSweep, Task
from weighloss.cli import demo_data

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "walkthrough.ipynb"
FILES = sorted(file for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb"))

pytestmark = pytest.mark.slow

make_sentences = demo_data.demo_data


def make_small(setattr, model: str) -> None:
    """Give the examples few sentences and a small model; in the process of the notebook too."""

    def few_sentences(**given):
        return make_sentences(**given | {"num_train": 96, "num_validation": 80})

    setattr(demo_data, "demo_data", few_sentences)
    setattr(demo_data, "demo_model", lambda: model)


@pytest.fixture(scope="module")
def small_encoder(small_model, tmp_path_factory) -> str:
    """The small model without its head, like a pretrained one."""
    folder = tmp_path_factory.mktemp("small_encoder")
    AutoTokenizer.from_pretrained(small_model).save_pretrained(folder)
    make_model(vocab_size=30522).bert.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run_example(monkeypatch, tmp_path, capsys, small_encoder):
    """Run an example in its own folder. Returns its variables and what it printed."""
    monkeypatch.chdir(tmp_path)
    make_small(monkeypatch.setattr, small_encoder)

    def run(name: str) -> tuple[dict, str]:
        return runpy.run_path(str(EXAMPLES / name), run_name="__main__"), capsys.readouterr().out

    return run


def test_every_example_has_a_test():
    assert len(FILES) >= 7
    assert all(f"test_{file.stem}" in globals() for file in FILES)


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".py"], ids=lambda file: file.stem)
def test_an_example_says_how_to_run_it_and_where_its_results_go(file):
    docstring = ast.get_docstring(ast.parse(file.read_text()))
    assert f"    python examples/{file.name} " in docstring
    assert f" to {file.stem}/" in docstring


def test_three_lines(run_example):
    variables, printed = run_example("three_lines.py")
    assert "Precision " in printed
    config = AutoConfig.from_pretrained("three_lines")
    assert config.weight_ratio == config.natural_ratio == variables["trainer"].class_weights.ratio == 84 / 12
    assert pipeline("text-classification", "three_lines")("Fit it.")[0]["label"] in variables["names"]


def test_sweep_and_choose(run_example):
    variables, printed = run_example("sweep_and_choose.py")
    sweep = RatioSweep.load("sweep_and_choose")
    choice = sweep.choose(variables["requirement"])
    assert str(choice) in printed
    assert sweep.kept_point == choice.point.leg
    assert choice.met == (choice.point.recall >= 0.65 and choice.point.tn + choice.point.fn > 0)
    assert len(sweep.points) == 4
    assert not set(variables["test"]["text"]) & {*variables["validation"]["text"], *variables["data"]["train"]["text"]}
    config = AutoConfig.from_pretrained("sweep_and_choose")
    assert (config.weight_ratio, config.requirement) == (choice.point.ratio, "recall>=0.65")
    model = pipeline("text-classification", "sweep_and_choose").model
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), variables["trainer"].model.parameters(), strict=True)
    )
    run_example("sweep_and_choose.py")
    assert RatioSweep.load("sweep_and_choose").points == sweep.points, "the same command has trained again"


def test_several_classes(run_example):
    variables, printed = run_example("several_classes.py")
    sweep, names = variables["sweep"], variables["names"]
    assert sweep.task is Task.MULTICLASS
    assert len(names) == 4
    natural = variables["trainer"].weights_at("natural")
    assert np.allclose(natural.counts * natural.weights, natural.counts.sum() / 4)
    last = [line for line in printed.splitlines() if line.count("(weight ") == 4]
    assert len(last) == len(sweep.points) == 3
    assert f"(weight {natural.weights.max():.2f})" in last[-1]


def test_tokens(run_example):
    variables, printed = run_example("tokens.py")
    row = variables["label_tokens"]({"text": "Call ``fit it`` of [`Model`], :func:`~a.b` or not."})
    tokens = variables["tokenizer"].convert_ids_to_tokens(row["input_ids"])
    code = [token for token, label in zip(tokens, row["labels"], strict=True) if label == 1]
    assert code == ["fit", "it", "model", "~", "a", ".", "b"]
    assert [row["labels"][0], row["labels"][-1]] == [-100, -100]
    sweep = RatioSweep.load("tokens")
    assert sweep.unit == "tokens"
    assert str(sweep.choose("recall>=0.85")) in printed
    found = pipeline("token-classification", "tokens")("Call fit of it.")
    assert {token["entity"] for token in found} <= set(variables["names"])


def test_lora(run_example):
    pytest.importorskip("peft")
    variables, printed = run_example("lora.py")
    assert json.loads(Path("lora/class_weights.json").read_text())["weight_ratio"] == 84 / 12
    size = sum(file.stat().st_size for file in Path("lora").glob("*.safetensors"))
    assert f"{size / 1e6:.1f} MB" in printed
    batch = variables["tokenizer"]("Fit the estimator.", return_tensors="pt")
    with torch.no_grad():
        trained = variables["trainer"].model.eval()(**batch).logits
        loaded = variables["classify"].model.eval()(**batch).logits
    assert torch.allclose(trained, loaded, atol=1e-5)
    assert variables["answer"]["label"] in variables["names"]


def test_images(run_example, monkeypatch):
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    digits.images, digits.target = digits.images[:120], digits.target[:120]
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)
    variables, printed = run_example("images.py")
    sweep, trainer = RatioSweep.load("images"), variables["trainer"]
    assert sweep.kept_point.f1 == max(point.f1 for point in sweep.points)
    assert "held-out digits" in printed
    trainer.model = ViTForImageClassification.from_pretrained("images")
    assert trainer.model.config.weight_ratio == sweep.kept_point.ratio
    metrics = trainer.evaluate()
    assert [metrics[f"eval_{name}"] for name in ("tp", "fp")] == [sweep.kept_point.tp, sweep.kept_point.fp]


def test_walkthrough(tmp_path, small_encoder):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    small = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
    small += f"import test_examples; test_examples.make_small(setattr, {small_encoder!r})"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(small))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    folder = tmp_path / "walkthrough"
    choice = RatioSweep.load(folder / "sweep").choose("recall>=0.6")
    assert str(choice) in "".join(output.get("text", "") for output in outputs)
    assert pipeline("text-classification", str(folder / "sweep")).model.config.weight_ratio == choice.point.ratio


def test_the_notebook_is_executed_small_and_without_paths_of_a_machine():
    notebook = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert NOTEBOOK.stat().st_size < 400_000
    assert not re.search(r"/(home|root|tmp|work|Users|usr)\b|site-packages|Warning", NOTEBOOK.read_text())


def test_every_number_in_the_text_of_the_notebook_is_in_its_code_or_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    shown = "".join(
        "".join(cell["source"]) + "".join("".join(output.get("text", "")) for output in cell["outputs"])
        for cell in cells
        if cell["cell_type"] == "code"
    )
    numbers = re.findall(r"\d+\.\d+", prose)
    assert numbers
    assert [number for number in numbers if number not in shown and number != "0.5"] == []
