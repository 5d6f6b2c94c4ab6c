# Everything here makes its own environment (.venv) first. Needed before: Python 3.11 with venv and pip, g++, make, perl.

PYTHON ?= python3.11
VENV ?= .venv
JOBS ?= 2
PYTEST_ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
BENCHMARKS := boards codec compression corruption large plan rtl run uart

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

demo: machine $(STAMP) ## the whole main job on the embedded digits: train, compress, compile, generate, simulate
	$(BIN)/shiftwright demo

test: lint ## lint, types and all tests but the long ones (includes the wheel check)
	$(BIN)/python -m pytest -n $(JOBS) -m "not regress" $(PYTEST_ARGS)

regress: machine $(STAMP) ## the long tests: full data sets, large simulations
	$(BIN)/python -m pytest -n $(JOBS) -m regress $(PYTEST_ARGS)

lint: machine $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(BENCHMARKS:%=bench-%) ## all benchmarks, one after the other, then the summary

# One at a time, also under "make -j": they measure time.
.NOTPARALLEL:
bench-boards: ## bitstreams of the tuned boards: size and clock
bench-codec: ## speed of the Huffman codec
bench-compression: ## accuracy and size of the compressed networks
bench-corruption: ## how the simulated accelerator ends on damaged models
bench-large: ## time and memory to compile large networks
bench-plan: ## what networks for 224 x 224 images would need on each board
bench-rtl: ## area and clock of routed designs
bench-run: ## cycles and bit-exactness of networks on the simulated RTL
bench-uart: ## loads over the simulated line, and trials in which something goes wrong
$(BENCHMARKS:%=bench-%): bench-%: machine $(STAMP)
	$(BIN)/python benchmarks/$*.py
	$(BIN)/python benchmarks/summary.py

venv: machine $(STAMP) ## only the environment

$(STAMP): pyproject.toml setup.py constraints.txt | machine
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Shiftwright and its tools into $(VENV) (the first time takes minutes)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

# need PROGRAM, TEST, PURPOSE, WAY TO GET IT
need = @{ $(2); } >/dev/null 2>&1 || { echo "shiftwright: $(1) is needed ($(3)) but is missing; get it with: $(4)" >&2; exit 3; }

machine:
	$(call need,$(PYTHON),$(PYTHON) -c 'import sys; assert sys.version_info >= (3$(comma) 11)',everything,apt-get install python3.11 (Debian 12)$(comma) dnf install python3.11 (Fedora)$(comma) or name another with make PYTHON=...)
	$(call need,the Python module venv,$(PYTHON) -c 'import venv$(comma) ensurepip',the environment,apt-get install python3.11-venv (Debian 12))
	$(call need,g++,command -v g++,compiles Verilator's models,apt-get install g++ (Debian)$(comma) dnf install gcc-c++ (Fedora))
	$(call need,perl,perl -MGetopt::Long -MPod::Usage -e 1,runs Verilator's start script,apt-get install perl (Debian)$(comma) dnf install perl (Fedora))

comma := ,

clean: ## remove what make made, but for the environment (.venv) and the cache folder
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis out
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

.PHONY: help demo test regress lint bench $(BENCHMARKS:%=bench-%) venv machine clean
