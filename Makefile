# The same without make:  python -m venv .venv
#                         .venv/bin/pip install -c constraints.txt -e '.[demo,dev]'
#                         .venv/bin/python scripts/sweep.py     or     .venv/bin/python -m pytest
PYTHON ?= python3
BIN := .venv/bin
FLAGS ?=
OUT ?= demo

.PHONY: demo test test-oldest quality style docs bench gpu

# The sweep with its charts on the built-in data and model, into OUT: about five minutes on two cores once installed, no Hub.
demo: .venv/installed
	$(BIN)/python scripts/sweep.py --output_dir $(OUT) $(FLAGS)

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(FLAGS)

# The exactness tests with the lowest versions that pyproject.toml claims; PyTorch is the one of constraints.txt, whose lowest
# version has no wheel for the CPU alone.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	sed -n '/^dependencies/,/^]/s/.*"\([A-Za-z0-9_-]*\)>=\([0-9.]*\)".*/\1==\2/p' pyproject.toml | grep -v '^torch==' \
		> .venv-oldest/constraints.txt
	grep '^torch==' constraints.txt >> .venv-oldest/constraints.txt
	.venv-oldest/bin/pip install --quiet -c .venv-oldest/constraints.txt -e '.[demo]' hypothesis optuna peft pytest tensorboard
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -m "not slow" tests/weighting tests/training/test_trainer.py \
		tests/training/test_where_it_works.py tests/sweep/test_legs.py $(FLAGS)

quality: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

style: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages, into site/; `mkdocs serve` shows them while they are written.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# How fast is it? One table of ratios; FLAGS="step imports" measures some of it.
bench: .venv/installed
	$(BIN)/python benchmarks/speed.py $(FLAGS)

# Exactness, memory and speed on a GPU, in one table; needs one, and a PyTorch that was built for it.
gpu: .venv/installed
	$(BIN)/python benchmarks/gpu.py $(FLAGS)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo,dev]'
	touch $@
