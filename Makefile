# The same without make:  python -m venv .venv
#                         .venv/bin/pip install -c constraints.txt -e '.[demo,dev]'
#                         .venv/bin/python scripts/sweep.py     or     .venv/bin/python -m pytest
PYTHON ?= python3
BIN := .venv/bin
FLAGS ?=
OUT ?= demo

.PHONY: demo test quality style docs bench

# The sweep with its charts on the built-in data and model, into OUT: about five minutes on two cores, no Hub.
demo: .venv/installed
	$(BIN)/python scripts/sweep.py --output_dir $(OUT) --num_ratios 7 --ratio_span 10 \
		--learning_rate 1e-4 --per_device_train_batch_size 8 $(FLAGS)

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(FLAGS)

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

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo,dev]'
	touch $@
