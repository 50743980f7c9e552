# Set-up, tests and demo of airflow-provider-vidu. Needs make and Python 3.11 or newer, nothing else.
# Everything is kept inside this folder: .venv/, .airflow/ and build/. `make clean` removes all of it.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
FAULTS_STAMP := $(CURDIR)/build/services/.set-up
CONSTRAINTS := constraints/airflow-3.3.2.txt
# Installs pinned versions with uv, or with pip if uv fails (a mirror may be configured for pip alone).
INSTALL = scripts/install.sh "$(BIN)/python" --constraint $(CONSTRAINTS)
INSTALL_US = $(INSTALL) --no-build-isolation --editable
# How many test processes; they wait for servers for much of their time, so two cores carry five of them.
JOBS ?= 6
# How many test processes share the tests on whole Airflows, which wait for most of their time.
AIRFLOWS ?= 3
# Which benchmarks `make bench` runs, such as ONLY=waiting; all if omitted.
ONLY ?=
# Further arguments for pytest, such as ARGS="-k download -x".
ARGS ?=

# Temporary files, pip's cache and Airflow's home stay in here as well.
export TMPDIR := $(CURDIR)/build/tmp
export PIP_CACHE_DIR := $(CURDIR)/build/pip-cache
export UV_CACHE_DIR := $(CURDIR)/build/uv-cache
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PATH := $(BIN):$(PATH)
# pytest rewrites every test module, which takes seconds in each process, unless it may keep the result.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup setup-faults setup-docs test test-fast faults check demo ui bench docs tables matrix clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(STAMP) ## Make .venv with pinned versions (only when something changed).
	@mkdir -p "$(TMPDIR)"

# To change the Python of an existing .venv: `make clean`, then `make setup PYTHON=...`.
$(STAMP): pyproject.toml $(CONSTRAINTS) scripts/find_python.sh
	@mkdir -p "$(TMPDIR)"
	@PYTHON='$(PYTHON)' scripts/find_python.sh > build/python
	@if [ ! -x "$(BIN)/python" ]; then \
	    echo "Making .venv with $$(cat build/python)"; \
	    "$$(cat build/python)" -m venv "$(VENV)"; \
	fi
	@echo "Installing pinned dependencies (some minutes the first time)"
	@$(INSTALL) 'hatchling' 'editables' 'uv'
	@$(INSTALL_US) '.[dev]'
# The install compiles what it copies; our own files stay here, and each of the tests' processes would compile them.
	@"$(BIN)/python" -m compileall -q -j 0 airflow_provider_vidu scripts
	@touch "$(STAMP)"

# Not in the list: `make faults` calls it. Celery's client, PostgreSQL and Redis; nothing is installed on the system.
setup-faults: setup $(FAULTS_STAMP)

$(FAULTS_STAMP): $(STAMP) scripts/services.py
	@echo "Installing what the tests on a scaled-out Airflow need"
	@$(INSTALL_US) '.[dev,cluster]'
	@"$(BIN)/python" scripts/services.py
	@mkdir -p "$(@D)"
	@touch "$@"

# A test that takes two minutes hangs: its stacks are printed, and its process ends, and with it the run. Each process
# takes a share of the files, so that it imports and starts only what those need (tests/shares.py).
FAST = "$(BIN)/python" -m pytest -n $(JOBS) --dist each --share-files --max-worker-restart 0 \
	-o faulthandler_timeout=120 -o faulthandler_exit_on_timeout=true $(ARGS)

test: setup ## Run units and integration, then end to end on private Airflows and in a browser.
	@$(FAST) -m "not (e2e or browser or cluster or soak or matrix or stores or nightly)"
# Files that share an Airflow run in one process (tests/shares.py).
	@"$(BIN)/python" -m pytest -n $(AIRFLOWS) --dist each --share-airflows --max-worker-restart 0 \
	    -m "browser or (e2e and not nightly)" $(ARGS)

test-fast: setup ## Run the tests that start no Airflow and no other long process.
	@$(FAST)

faults: setup-faults ## Run every test of a fault, print the table, write docs/faults.md (about an hour).
	@"$(BIN)/python" scripts/faults.py $(ARGS)

# Internal: what .ci/run needs beside `setup`; the only thing here that may change the machine.
setup-browser:
	@scripts/find_browser.sh --install

# Internal: renew the README's pictures with what the browser tests see.
pictures: setup
	@BROWSER_PICTURES="$(CURDIR)/docs/images" "$(BIN)/python" -m pytest -m browser tests/browser $(ARGS)

check: setup ## Lint, check formats, imports and types.
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check --quiet .
	@"$(BIN)/lint-imports" --no-cache --no-logo
	@"$(BIN)/python" -m mypy

demo: setup ## From a prompt to an MP4 on a private Airflow, against the sandbox (or VIDU_HOST and VIDU_API_KEY); ARGS=--batch: 20 rows in one task.
	@"$(BIN)/python" scripts/demo.py $(ARGS)

ui: setup ## Keep the private Airflow open until Ctrl-C; prints address and login.
	@"$(BIN)/python" scripts/demo.py --ui

# The peers go into the same environment, at their pinned versions.
$(VENV)/.bench: $(STAMP)
	@echo "Installing what the benchmarks compare with"
	@$(INSTALL_US) '.[dev,bench,cluster]'
	@touch "$@"

bench: setup setup-faults $(VENV)/.bench ## Measure everything beside its peers (over an hour, quiet machine); writes benchmarks/RESULTS.md.
	@"$(BIN)/python" -m benchmarks --only "$(ONLY)"

$(VENV)/.docs: $(STAMP)
	@echo "Installing what builds the manual"
	@$(INSTALL_US) '.[dev,docs]'
	@touch "$@"

# Not in the list: .ci/run calls it, so that nothing is installed while other targets run beside it.
setup-docs: setup $(VENV)/.docs

docs: setup-docs ## Build the manual into build/docs; a warning is an error.
	@"$(BIN)/python" -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

tables: setup ## Renew the manual's tables of parameters from the docstrings.
	@"$(BIN)/python" scripts/parameters.py

matrix: setup ## The same wheel on every supported Airflow and Python (ARGS=--ends: oldest and newest only; stores need npm).
	@"$(BIN)/python" scripts/matrix.py $(ARGS)

clean: ## Remove everything that was made here, .venv included.
	@rm -rf .venv .airflow build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
