# make demo   bundled model on the sample image, into ./out/demo
# make test   all tests
# make test-fast   without the slow ones
# make lint   ruff, mypy, import contracts
# make docs   the documentation's site, into ./site
#
# Each makes what it needs in .venv: with uv where it is installed, else with venv and pip. TORCH chooses the torch build, for
# example TORCH=torch==2.13.0 or the path of a wheel; PYTHON the interpreter of a new .venv.

PYTHON ?= python3
TORCH ?= torch
VENV := .venv
RUN := $(VENV)/bin/python
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# On a busy machine spinning OpenMP threads cost ten times the work itself.
export OMP_WAIT_POLICY := PASSIVE

UV := $(shell command -v uv 2>/dev/null)
ifneq ($(UV),)
# uv does not read pip's configuration: a folder of local wheels is handed on, spaces becoming commas.
export UV_FIND_LINKS ?= $(shell links="$${PIP_FIND_LINKS:-$$($(PYTHON) -m pip config get global.find-links 2>/dev/null)}"; echo $$links | tr ' ' ',')
export UV_COMPILE_BYTECODE := 1
NEW_VENV := uv venv --quiet --python $(PYTHON) $(VENV)
INSTALL := uv pip install --quiet --python $(RUN)
else
NEW_VENV := $(PYTHON) -m venv $(VENV)
INSTALL := $(RUN) -m pip install --quiet --disable-pip-version-check
endif

.PHONY: demo test test-fast lint docs clean FORCE

demo: $(VENV)/.core
	@$(VENV)/bin/monolift demo

test: $(VENV)/.dev
	@$(RUN) -m pytest

test-fast: $(VENV)/.dev
	@$(RUN) -m pytest -m 'not slow and not browser'

lint: $(VENV)/.dev
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports

docs: $(VENV)/.docs
	@$(VENV)/bin/zensical build --strict

clean:
	rm -rf $(VENV) out site .cache build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(RUN):
	@echo "making $(VENV) ($(if $(UV),uv,venv and pip))"
	@rm -rf $(VENV) && $(NEW_VENV) || { rm -rf $(VENV); echo "no virtual environment: install uv, or the python3-venv package" >&2; exit 1; }

# Written anew only when TORCH is another than last time, so that the stamps below notice.
$(VENV)/.torch: FORCE | $(RUN)
	@echo '$(TORCH)' | cmp --silent - $@ || echo '$(TORCH)' > $@

$(VENV)/.core: pyproject.toml $(VENV)/.torch
	@echo "installing monolift with $(TORCH)"
	@$(INSTALL) '$(TORCH)' --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.torch
	@echo "installing monolift and its development tools with $(TORCH)"
	@$(INSTALL) '$(TORCH)' --editable '.[dev]'
	@touch $@ $(VENV)/.core

$(VENV)/.docs: pyproject.toml $(VENV)/.torch
	@echo "installing monolift with $(TORCH) and what builds its documentation"
	@$(INSTALL) '$(TORCH)' --editable '.[docs]'
	@touch $@ $(VENV)/.core
