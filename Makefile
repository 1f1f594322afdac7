# `make` lists the targets. Each sets up .venv by itself, once: the files in $(DONE) say what is installed there, so a
# second call starts at once.
#
# How passes/ and models_zoo/ are seen as fxgrow.passes and fxgrow.models_zoo:
# * imports: the plain editable install maps them, new files included. Its strict mode (editable_mode=strict) does not
#   serve: it links files at install time, so a new file is missing until the next install, and started from the
#   repository root (`python -m fxgrow.x`, pytest) Python finds ./fxgrow first, where fxgrow.passes does not exist.
# * type checkers and editors run no import hooks, and need the folders in their place: `make links` puts links there
#   that git ignores. (On Windows: mklink /J fxgrow\passes passes, and the same for models_zoo.)

PYTHON ?= python3
JOBS ?= 2
MINUTES ?= 30

VENV := .venv
TORCH := torch torchvision
BIN := $(VENV)/bin
DONE := $(VENV)/.done
LINKS := fxgrow/passes fxgrow/models_zoo

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test oldest lint types fuzz mutants bench zoo schemes links clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DONE)/demo  ## grow small trained models and show that they compute the same function
	$(BIN)/python -m fxgrow.models_zoo.demo.digits

test: lint types  ## everything CI checks: lint, types, pytest (JOBS=2 processes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

oldest:  ## pytest with the oldest torch that is supported, in .venv-oldest
	$(MAKE) VENV=.venv-oldest TORCH='torch==2.11.* torchvision==0.26.*' .venv-oldest/.done/dev
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n $(JOBS) --dist loadfile

lint: $(DONE)/dev  ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(DONE)/dev links  ## mypy, strict
	$(BIN)/mypy

fuzz: $(DONE)/dev  ## random models, random growths, all laws, for MINUTES=30; what breaks one is saved as a script
	OMP_NUM_THREADS=1 $(BIN)/python -m fxgrow.testing.fuzz --minutes $(MINUTES) --jobs $(JOBS)

mutants: $(DONE)/dev  ## plant faults in fxgrow, one after another (JOBS=2 processes): the suite must catch every one
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants --jobs $(JOBS)

bench: $(DONE)/bench  ## run the benchmarks
	$(BIN)/python benchmarks/run.py

# Goes on where it was stopped: what is found is kept in zoo.jsonl. MINUTES=30 on the command line ends it sooner.
zoo: $(DONE)/bench  ## measure all models of torchvision and timm (JOBS=2 processes), into docs/coverage.md
	OMP_NUM_THREADS=1 $(BIN)/python -m fxgrow.models_zoo.coverage.sweep --jobs $(JOBS) --write docs/coverage.md \
	  $(if $(filter-out file,$(origin MINUTES)),--minutes $(MINUTES))

schemes: $(DONE)/bench  ## measure every scheme on every axis of the small catalogue, into docs/coverage.md
	$(BIN)/python -m fxgrow.models_zoo.coverage.schemes --write docs/coverage.md

links: $(LINKS)  ## show passes/ and models_zoo/ to type checkers and editors

clean:  ## remove caches, links and build outputs (.venv stays)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f $(LINKS)
	find fxgrow passes models_zoo tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(LINKS):
	ln -s ../$(@F) $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "fxgrow needs Python 3.11 or newer, and there is no '$(PYTHON)' here: make PYTHON=... names another" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("fxgrow needs Python 3.11 or newer, and $(PYTHON) is %d.%d: make PYTHON=... names another" % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(DONE)/torch: | $(BIN)/python
	$(BIN)/python -m pip install $(TORCH)
	@mkdir -p $(@D) && touch $@

# $(DONE)/dev, $(DONE)/demo, $(DONE)/bench: fxgrow itself, editable, with the extra of that name.
$(DONE)/%: pyproject.toml $(DONE)/torch
	$(BIN)/python -m pip install --editable '.[$*]'
	@touch $@
