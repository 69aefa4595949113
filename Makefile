# Every target sets up .venv on first use; the interpreter is PYTHON.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test test-slow test-timm style quality

quickstart: $(INSTALLED)
	$(BIN)/attentive-probes train recipes/quickstart.yaml train.overwrite=true

test: $(INSTALLED)
	$(BIN)/pytest -n auto

test-slow: $(INSTALLED)
	$(BIN)/pytest -n auto -m slow

# timm wants torchvision, of which PyPI has only the CUDA build: both live apart from the other packages.
test-timm: $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --target .venv/timm torchvision==0.28.0 timm==1.0.31
	PYTHONPATH=.venv/timm $(BIN)/pytest -n auto tests/backbones tests/data -k "timm or torchvision"

style: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

quality: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,plots,lora,augment]"
	touch $@
