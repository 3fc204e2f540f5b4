# make demo | test | check | docs | clean. Everything happens in .venv; nothing outside this folder is installed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Byte code is compiled on all cores after the installation, without what nobody here imports: pip would take one core.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --prefer-binary -c constraints.txt

# LiteLLM is installed without what it asks for: it wants an older huggingface_hub than transformers does, for hubs that
# no test asks. What it imports stands in the extra `dev`.

# A process a core, each test file whole in one of them; the longest files first.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

UNUSED := /tests/|/torch/testing/|/transformers/models/(?!auto/|llama/|qwen|mistral/|gemma)
COMPILE := $(BIN)/python -m compileall -q -q -j 0 -x '$(UNUSED)' $(VENV)/lib || true

.PHONY: demo test test-fast check docs clean setup
.DELETE_ON_ERROR:

setup: $(VENV)/.core

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or later is needed"; echo "  type:  make demo PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (about two minutes the first time)"
	$(INSTALL) -e .
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(INSTALL) -e '.[dev]'
	$(INSTALL) --no-deps litellm
	@$(COMPILE)
	@touch $@

demo: $(VENV)/.core
	$(BIN)/tunewright train examples/identity/recipe.yaml
	$(BIN)/tunewright chat -m "Who are you?"
	$(BIN)/tunewright chat -m "你是谁？"

test: $(VENV)/.dev
	$(PYTEST)

test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow"

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/build.py --check

docs: $(VENV)/.dev
	$(BIN)/python docs/build.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
