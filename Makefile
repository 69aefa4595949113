# Every target sets up .venv on first use; the interpreter is PYTHON.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test test-slow style quality

quickstart: $(INSTALLED)
	$(BIN)/attentive-probes train recipes/quickstart.yaml train.overwrite=true

test: $(INSTALLED)
	$(BIN)/pytest -n auto

test-slow: $(INSTALLED)
	$(BIN)/pytest -n auto -m slow

style: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

quality: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,plots]"
	touch $@
