# Everything a fresh machine needs: only Python >= 3.10 and make have to be there.
PYTHON ?= python3
BIN := .venv/bin
PLAIN := .venv/.plain
READY := .venv/.ready
# A worker a core; the slowest tests are named at the end.
WORKERS := -n auto --maxprocesses 8 --dist worksteal --durations 15 --durations-min 5

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format types bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## make .venv and install the project and its tools into it

$(PLAIN): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "gan needs Python 3.10 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $(PLAIN)

$(READY): $(PLAIN)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

demo: $(PLAIN)  ## train a DCGAN on real pictures for about five minutes, then sample and interpolate
	$(BIN)/gan train experiment=demo
	$(BIN)/gan sample
	$(BIN)/gan interpolate
	@echo "Look at the newest folders in outputs/train, outputs/sample and outputs/interpolate."

test: $(READY)  ## the tests, at most eight minutes of two cores
	$(BIN)/python -m pytest -m "not slow" $(WORKERS)

check: $(READY)  ## the slow tests, at most thirty: the built wheel, kills, ranks, pages in Chromium, every command of the README
	$(BIN)/python -m pytest -m slow $(WORKERS)

lint: $(READY)  ## style and format, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## bring everything into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

bench: $(READY)  ## speed: the engine against a hand-written loop, the networks against their textbook form, evaluation
	$(BIN)/python -m tests.bench.loop
	$(BIN)/python -m tests.bench.cycle
	$(BIN)/python -m tests.bench.evaluation

clean:  ## remove the environment and caches; outputs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
