# Two commands do everything on a fresh machine with Python 3.11, pip and make: `make search` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install search test lint unit clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

search: install  ## the main job: an architecture search on ML-100K
	$(BIN)/mixrec-automl search configs/ml-100k.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## all checks and all tests
	$(BIN)/coverage erase
	$(BIN)/python -m pytest --cov --cov-report=term

unit: install  ## the tests that take seconds
	$(BIN)/python -m pytest -m 'not end_to_end'

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
