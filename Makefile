# The commands of this project; a bare `make` lists them. Everything lives in .venv at the root; ARGS= passes options through.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=
# Processes that run the tests: they wait more than they compute. WORKERS=0 runs them one after the other and lets them print (ARGS=-s).
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench firmware dashboards docs lock clean

help: ## List these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"expected Python 3.11 to 3.13, found {v[0]}.{v[1]}; call make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "installing the locked packages into .venv (about 2 GB, some minutes on the first call)"
	@UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv sync --frozen --inexact --compile-bytecode --no-progress --python $(BIN)/python
	@$(BIN)/castline broker --fetch-only
	@touch $(READY)

setup: $(READY) ## Make .venv with the locked packages, the Java runtime and Kafka's jars

demo: $(READY) ## Three lines photographed, judged and sorted over a real Kafka; ARGS="--seconds 60"
	@$(BIN)/castline demo $(ARGS)

test: $(READY) ## Everything that can be tested on one machine, with real parts; ARGS="tests/..." for a piece
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY) ## Format, lint and types, without changing a file
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(READY) ## Format and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## Throughput and latency against the bare model; ARGS="--json"
	@$(BIN)/castline bench pipeline $(ARGS)

firmware: $(READY) ## Build the board's firmware and say how full the Mega is
	@$(BIN)/python -m firmware

dashboards: $(READY) ## Write dashboards, rules and runbook again from their code
	@$(BIN)/python -m dashboards.generate

docs: $(READY) ## Write docs/ again: schemas, topics, settings, command help
	@$(BIN)/python -m docs.generate

lock: ## Resolve uv.lock again after a change of pyproject.toml
	@$(BIN)/uv lock

clean: ## Remove .venv, caches and what demo and test left
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache var
