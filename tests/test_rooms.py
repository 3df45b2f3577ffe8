"""The rooms of src/weighloss import one way, without a circle, and use few private names of other libraries."""

import ast
from pathlib import Path

import pytest
from transformers import Trainer

from weighloss import WeightedLossTrainer

SRC = Path(__file__).parents[1] / "src" / "weighloss"
ROOMS = [
    "errors",
    "weighting",
    "results",
    "reports",
    "training",
    "sweep",
    "cli",
]  # each imports only from those before it
# Private names of other libraries that we may use, each with a comment that says why where it is used.
PRIVATE = {("weighting/labels.py", "_indices")}
FILES = sorted(path for path in SRC.rglob("*.py") if path.parent != SRC or path.stem == "errors")


def room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> dict[int, list[Path]]:
    """The modules of weighloss that each line of a file imports, also within functions and for types."""
    found: dict[int, list[Path]] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            targets = [base.with_suffix(".py")] if node.module and base.with_suffix(".py").exists() else []
            targets = targets or [(base / name.name).with_suffix(".py") for name in node.names]
            found[node.lineno] = [target for target in targets if target.exists()]
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            assert not any(name.split(".")[0] == "weighloss" for name in names), (
                f"{path}:{node.lineno} is not relative"
            )
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_room_imports_only_from_rooms_above_it(path):
    for line, modules in imported_modules(path).items():
        for module in modules:
            where = f"{path.relative_to(SRC)}:{line} imports {module.relative_to(SRC)}"
            assert ROOMS.index(room(module)) <= ROOMS.index(room(path)), where


def test_no_module_imports_itself_by_way_of_others():
    imports = {path: {m for modules in imported_modules(path).values() for m in modules} for path in FILES}

    def visit(path: Path, way: list[Path]) -> None:
        assert path not in way, " -> ".join(str(step.relative_to(SRC)) for step in [*way[way.index(path) :], path])
        if path not in done:
            for module in sorted(imports.get(path, ())):
                visit(module, [*way, path])
            done.add(path)

    done: set[Path] = set()
    for path in FILES:
        visit(path, [])


@pytest.mark.parametrize("name", ROOMS[1:])
def test_a_room_says_in_one_sentence_what_it_is_for(name):
    said = ast.get_docstring(ast.parse((SRC / name / "__init__.py").read_text()))
    assert said
    assert said.count(". ") == 0
    assert said.endswith(".")


def test_private_names_of_other_libraries_are_few_and_known():
    """Each of them will move one day: then a test of what it is used for has to fail."""
    found = set()
    for path in FILES:
        tree = ast.parse(path.read_text())
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_own(node.value)}
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [name.name for name in node.names] + (node.module or "").split(".")
            elif isinstance(node, ast.Attribute) and node.attr not in own:
                names = [node.attr]
            found |= {
                (str(path.relative_to(SRC)), name)
                for name in names
                if name.startswith("_") and not name.startswith("__")
            }
    private = {name for name in vars(WeightedLossTrainer) if name.startswith("_") and not name.startswith("__")}
    found |= {("training/trainer.py", name) for name in private if hasattr(Trainer, name)}  # overridden
    assert found == PRIVATE
    assert len(PRIVATE) <= 3


def is_own(value: ast.expr) -> bool:
    """Whether an attribute is looked up in self, cls or an object of this module."""
    return isinstance(value, ast.Name) and value.id in ("self", "cls")
