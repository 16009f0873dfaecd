# Two commands do everything on a fresh Linux machine:
#   make run    environment, installation, python main.py --scene lego
#   make test   environment, installation with [dev], style, types, tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?= --scene lego
# Without an NVIDIA GPU the CPU build of torch is a tenth of the download.
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: run test clean
.DELETE_ON_ERROR:

run: $(VENV)/.run-installed
	$(BIN)/python main.py $(ARGS)

test: $(VENV)/.test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.10 to 3.13 is needed, $(PYTHON) is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# An index that does not answer at once is left out: pip would retry for minutes.
$(VENV)/.torch-installed: $(VENV)/.made constraints.txt
	@echo "Installing torch (some minutes the first time) ..."
	@if [ -n "$(TORCH_INDEX)" ] && $(BIN)/python -c \
	  "import urllib.request as u; u.urlopen('$(TORCH_INDEX)/torch/', timeout=5)" 2>/dev/null; \
	  then $(PIP_INSTALL) --index-url $(TORCH_INDEX) torch; else $(PIP_INSTALL) torch; fi
	@touch $@

$(VENV)/.run-installed: $(VENV)/.torch-installed pyproject.toml
	@echo "Installing kbuffers ..."
	@$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.test-installed: $(VENV)/.torch-installed pyproject.toml
	@echo "Installing kbuffers with its test tools ..."
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@
