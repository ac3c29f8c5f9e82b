# Two commands do everything on a fresh machine with Python 3.11, pip and make: `make search` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests that start Ray: each has processes on all cores and waits for them a third of its time, so two files run at once,
# the long ones of end_to_end first. All others run in a process for each core, of one thread each; more than four would be
# short of memory.
WITH_RAY := tests/end_to_end tests/faults tests/mixrec_automl/cluster tests/mixrec_automl/test_preflight.py \
	tests/mixrec_automl/integrations/test_examples.py tests/mixrec_automl/integrations/test_ray_tune.py
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile
TWO_AT_ONCE := --numprocesses 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install search test lint unit faults fuzz audit test-cluster cluster-demo soak parity docs pictures clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## set up .venv, nothing else

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

search: install  ## set up, then the main job: an architecture search on MovieLens 100K
	$(BIN)/mixrec-automl search configs/ml-100k.yaml

test: lint  ## set up, then all checks and all tests, with coverage
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(WITH_RAY:%=--ignore=%) --cov --cov-report=
	$(BIN)/python -m pytest $(TWO_AT_ONCE) $(WITH_RAY) --cov --cov-append --cov-report=term

lint: install  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: install  ## the tests that take seconds
	$(BIN)/python -m pytest -m 'not end_to_end and not fault and not cluster'

faults: install  ## the tests that kill, freeze and starve real processes, with a table of recovery times
	$(BIN)/python -m pytest -m fault

fuzz: install  ## 10,000 broken files for each reader, and as many requests to the HTTP service; hours
	OMP_NUM_THREADS=1 MIXREC_FUZZ_CASES=$${MIXREC_FUZZ_CASES:-10000} $(BIN)/python -m pytest tests/fuzz --timeout 0 \
		--numprocesses logical --maxprocesses 4

audit:  ## whether PyPI knows of a vulnerability of what constraints.txt pins; from an environment of its own
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet 'pip-audit>=2.10,<3'
	.venv-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip --progress-spinner off

test-cluster: install  ## the tests on a Ray cluster of several nodes on this machine: minutes
	$(BIN)/python -m pytest -m cluster

cluster-demo: install  ## a cluster on this machine: a search that outlives one of its nodes, promoted, served, taken down
	$(BIN)/python -u -m tests.cluster_demo

soak: install  ## a search of 200 short trials under a random fault every few seconds; goes on where interrupted
	$(BIN)/python -u -m tests.faults.soak

parity: install  ## our GRU4Rec, SASRec, BERT4Rec and FDSA against RecBole's, which gets its own environment; hours
	$(BIN)/mixrec-automl data prepare ml-100k
	$(BIN)/python -u -m tools.recbole_parity.compare --data ml-100k

docs: install  ## write the generated pages of docs/ anew, and build the site into site/
	$(BIN)/python -m mixrec_automl.configuration_reference > docs/configuration.md
	$(BIN)/typer mixrec_automl.cli.app utils docs --name mixrec-automl --title Commands --output docs/commands.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

pictures: install  ## take the pictures under docs/images anew, of the search SEARCH=NAME; needs Chromium
	$(BIN)/python -m tools.screenshots $(SEARCH)

clean:  ## remove .venv and caches; data and searches stay
	rm -rf $(VENV) .venv-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* build dist site
