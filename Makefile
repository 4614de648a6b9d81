# What has to be installed: Python 3.10 or newer (with venv) and make. Everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
# Empty files, made when an installation is complete: of the project, and of the project with its tools.
PLAIN := .venv/.plain
READY := .venv/.ready
LOG := .venv/pip.log
# One test process per core; the slowest tests are listed at the end.
WORKERS := -n auto --maxprocesses 8 --dist worksteal --durations 15 --durations-min 5

# What pip logs when it cannot reach a package index; an index that answers has at least one version of a package.
UNREACHED := Connection(Error| refused| reset| aborted)|ConnectTimeout|Max retries|Retrying|timed out|Temporary failure|SSLError|ProxyError|from versions: none
WANTED = $(if $(filter-out demo,$(MAKECMDGOALS)),".[dev]",.)
OFFLINE = pip could not reach a package index: behind a proxy set HTTPS_PROXY, for an index of your own set \
	PIP_INDEX_URL; without a network run `pip wheel -w wheels hatchling editables $(WANTED)` in a copy of this folder on a \
	machine that has one, with the same system and Python, copy wheels here and type \
	`make $(MAKECMDGOALS) PIP_NO_INDEX=1 PIP_FIND_LINKS=$(CURDIR)/wheels`

define PIP_INSTALL
	@rm -f $(LOG)
	@echo 'pip installs the packages into .venv, in a few minutes; its log is $(LOG)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --log $(LOG) -e $(1) || { \
		if grep -qsE '$(UNREACHED)' $(LOG); then echo '$(OFFLINE)'; \
		else echo 'pip could not install the packages: its messages are above and in $(LOG)'; fi >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format types bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## create .venv and install the project, its extras and its development tools
	@echo 'Next: source .venv/bin/activate, which puts gan on your path, then gan --help'

$(PLAIN): pyproject.toml
	@command -v '$(PYTHON)' > /dev/null || { echo 'there is no $(PYTHON) here: install Python 3.10 or newer,' \
		'or type make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit("gan needs Python 3.10 or newer, and $(PYTHON) is %d.%d: type make \
	$(MAKECMDGOALS) PYTHON=python3.12, or whichever newer one is installed" % sys.version_info[:2] \
	if sys.version_info < (3, 10) else 0)'
	@'$(PYTHON)' -c 'import ensurepip, venv' 2> /dev/null || { echo '$(PYTHON) cannot create environments:' \
		'on Debian and Ubuntu type sudo apt install python3-venv, then make $(MAKECMDGOALS) again' >&2; exit 1; }
	@'$(PYTHON)' -m venv .venv
	$(call PIP_INSTALL,.)
	@touch $(PLAIN)

$(READY): $(PLAIN)
	$(call PIP_INSTALL,".[dev]")
	@touch $(READY)

demo: $(PLAIN)  ## install, train a DCGAN on images of clothes for about five minutes, then draw samples and interpolations
	$(BIN)/gan train experiment=demo
	@{ $(BIN)/gan sample && $(BIN)/gan interpolate && $(BIN)/gan interpolate format=gif frames=30; } > .venv/demo.txt
	@echo && echo 'Look at these pictures:' && sed 's/^.*: /  /' .venv/demo.txt
	@echo && echo 'Next:'
	@echo '  source .venv/bin/activate                        # puts gan on your path'
	@echo '  gan train experiment=photos dataset.root=FOLDER  # your own images'
	@echo '  gan --guide                                      # own images, comparisons, evaluation and more'

test: $(READY)  ## the fast tests, at most eight minutes on two cores
	$(BIN)/python -m pytest -m "not slow" $(WORKERS)

check: $(READY)  ## the slow tests, at most thirty: wheel, killed runs, several processes, browser, documented commands
	$(BIN)/python -m pytest -m slow $(WORKERS)

lint: $(READY)  ## check style and format without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## fix style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

bench: $(READY)  ## speed: training against a hand-written loop, networks against their textbook form, evaluation
	$(BIN)/python -m tests.bench.loop
	$(BIN)/python -m tests.bench.stylegan2
	$(BIN)/python -m tests.bench.stylegan3
	$(BIN)/python -m tests.bench.cycle
	$(BIN)/python -m tests.bench.evaluation

clean:  ## remove the environment and caches; outputs/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
