# Two commands do everything on a fresh Linux machine:
#   make run    environment, installation, python main.py --scene lego
#   make test   environment, installation with [dev], style, types, tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?= --scene lego
# How to get torch, when the default build is not the one you want, e.g. an index of CPU builds:
# make run TORCH_ARGS="--index-url ..."
TORCH_ARGS ?=
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: run test cuda-check audit clean
.DELETE_ON_ERROR:

run: $(VENV)/.run-installed
	$(BIN)/python main.py $(ARGS)

test: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest

# Compiles the CUDA kernels for every kind of GPU; where there is no nvcc it says so and skips that.
cuda-check: $(VENV)/.test-installed
	KBUFFERS_CUDA_CHECK=1 $(BIN)/python -m pytest tests/kbuffer/test_cuda_compile.py \
	  tests/kbuffer/test_cuda_emulator.py tests/kbuffer/test_cuda_build.py \
	  tests/kbuffer/test_gaussians_cuda.py

# Known weaknesses of the installed libraries, as information: it needs a network, and never fails.
audit: $(VENV)/.run-installed
	-@$(PIP_INSTALL) pip-audit && $(BIN)/pip-audit --local --progress-spinner off --timeout 15 || \
	  echo "pip-audit found something or could not look it up; this stops nothing."

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.10 to 3.13 is needed, $(PYTHON) is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.torch-installed: $(VENV)/.made constraints.txt
	@echo "Installing torch (some minutes the first time) ..."
	@$(PIP_INSTALL) $(TORCH_ARGS) torch
	@touch $@

$(VENV)/.run-installed: $(VENV)/.torch-installed pyproject.toml
	@echo "Installing kbuffers ..."
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.test-installed: $(VENV)/.torch-installed pyproject.toml
	@echo "Installing kbuffers with its test tools ..."
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@
