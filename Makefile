# Everything starts here. Only make and a Python from 3.11 to 3.13 are needed: the
# virtual environment makes itself, from the hashed locks, when a target first needs it.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip --quiet --disable-pip-version-check install
# UPGRADE=1 moves every pin to the newest release; without it only what must move does.
COMPILE := $(PY) -m uv --quiet pip compile pyproject.toml --universal \
	--python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo demo-kubernetes test test-e2e test-long lint fmt bench protos lock \
	clean format ruff types imports generated unit

help: ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile \
		| while IFS='|' read -r target what; do printf '%-22s %s\n' "$$target" "$$what"; done

demo: $(VENV)/.runtime ## see it work, without a cluster
	@$(PY) -m deploy.demo.demo

demo-kubernetes: $(VENV)/.runtime ## see it work on a real control plane (needs Go)
	@$(PY) -m deploy.demo.kubernetes

test: lint generated unit ## the whole gate

test-e2e: $(VENV)/.dev ## against a real control plane (K8S=1.36.3: of that version)
	@K8S=$(K8S) $(PY) -m pytest --quiet -m e2e tests/e2e

test-long: $(VENV)/.dev ## the laws of fairness on 20,000 random trees and more
	@HYPOTHESIS_PROFILE=long $(PY) -m pytest --quiet -m long tests

lint: format ruff types imports ## the static part of the gate

fmt: $(VENV)/.dev ## rewrite the code as the gate wants it
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: $(VENV)/.dev ## measure against the thresholds
	@PYTHONPATH=. $(PY) benchmarks/run.py

protos: $(VENV)/.dev ## regenerate scheduler/v1
	@PYTHON=$(PY) protos/generate.sh

lock: $(VENV)/.dev ## resolve both locks anew (UPGRADE=1: to the newest)
	@$(COMPILE) --extra build -o requirements.txt
	@$(COMPILE) --extra build --extra dev -c requirements.txt -o requirements-dev.txt

# What stays: the control plane in ~/.cache/gpu-fairshare, which takes minutes to build;
# `python -m tests.controlplane.build --remove` removes that.
clean: ## remove everything that makes itself in here
	@rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

# The steps of the gate, cheapest first. Each says its name.

format: $(VENV)/.dev
	@echo "== format"
	@$(PY) -m ruff format --check --quiet . || { echo "run: make fmt"; exit 1; }

ruff: $(VENV)/.dev
	@echo "== ruff"
	@$(PY) -m ruff check --quiet .

types: $(VENV)/.dev
	@echo "== types"
	@$(PY) -m mypy --no-error-summary scheduler simulator \
		$(wildcard deploy/tools deploy/demo)

imports: $(VENV)/.dev
	@echo "== imports"
	@$(VENV)/bin/lint-imports --no-logo

generated: $(VENV)/.dev
	@echo "== generated"
	@PYTHON=$(PY) protos/generate.sh --check
	@$(PY) deploy/tools/generate_gpu_tables.py --check
	@$(PY) deploy/tools/generate_crds.py --check

unit: $(VENV)/.dev
	@echo "== pytest"
	@$(PY) -m pytest --quiet -m "not e2e"

# The environment. A stamp is newer than the lock it was filled from, so nothing is
# installed twice. The development lock holds every pin of the runtime lock.

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
		|| { echo "$(PYTHON) is missing or not 3.11 to 3.13; name another: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: python3-venv)"; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: requirements.txt pyproject.toml $(PY)
	@echo "== installing what the project runs on"
	@$(PIP_INSTALL) --require-hashes -r requirements.txt
	@$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt pyproject.toml $(PY)
	@echo "== installing what the project runs on and is checked with"
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	@$(PIP_INSTALL) --no-build-isolation --no-deps --editable .
	@touch $(VENV)/.runtime $@
