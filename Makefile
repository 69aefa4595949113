# Every target sets up .venv on first use; the interpreter is PYTHON.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test test-slow test-timm test-quantization test-transformers test-page style quality

quickstart: $(INSTALLED)
	$(BIN)/attentive-probes train recipes/quickstart.yaml train.overwrite=true

test: $(INSTALLED)
	$(BIN)/pytest -n auto --dist worksteal

test-slow: $(INSTALLED)
	$(BIN)/pytest -n auto --dist worksteal -m slow

# timm wants torchvision, of which PyPI has only the CUDA build: both live apart from the other packages.
test-timm: $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --target .venv/timm torchvision==0.28.0 timm==1.0.31
	PYTHONPATH=.venv/timm $(BIN)/pytest -n auto --dist worksteal tests/backbones tests/data -k "timm or torchvision"

# torchao and quanto are imported by PEFT and transformers wherever they are found; they live apart as well.
test-quantization: $(INSTALLED)
	$(BIN)/pip install --quiet --no-deps --target .venv/quantization torchao==0.18.0 optimum-quanto==0.2.7
	PYTHONPATH=.venv/quantization $(BIN)/pytest tests/backbones/test_quantization.py

# transformers' own tests of models come with its source distribution, not with its wheel.
SUITE := .venv/transformers-suite
test-transformers: $(INSTALLED)
	test -f $(SUITE)/tests/__init__.py || { mkdir -p $(SUITE) && $(BIN)/pip download --quiet --no-deps --no-binary :all: \
	  --dest $(SUITE) --constraint constraints.txt transformers && \
	  tar xzf $(SUITE)/transformers-*.tar.gz -C $(SUITE) --strip-components 1 && touch $(SUITE)/tests/__init__.py; }
	TRANSFORMERS_TESTS=$(SUITE) $(BIN)/pytest -n auto --dist worksteal -o addopts=-q -W default tests/transformers_suite

# The page is tested in a real browser. Debian calls it chromium; elsewhere, put one of that name on the PATH.
test-page: $(INSTALLED)
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo]" playwright
	$(BIN)/pytest -m slow tests/serving/test_page.py

style: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

quality: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# On Linux, PyPI's PyTorch brings gigabytes of CUDA. Without a GPU the CPU build is taken where its index can be reached.
CPU_INDEX := https://download.pytorch.org/whl/cpu
HAS_NO_GPU := test "$$(uname -s)" = Linux && ! command -v nvidia-smi >/dev/null

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	if $(HAS_NO_GPU); then $(BIN)/pip install --quiet --retries 0 --timeout 10 --constraint constraints.txt \
	  --index-url $(CPU_INDEX) torch 2>/dev/null || true; fi
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,plots,lora,augment]"
	touch $@
