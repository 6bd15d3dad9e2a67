# The commands of this project. `make` without a target lists them. All packages are installed into the folder .venv.
# ARGS="..." adds options to the command that a target runs.
PYTHON ?= python3
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=
# Number of processes that run the tests in parallel. WORKERS=0 runs all tests in one process, which is needed to see their output
# with ARGS=-s.
WORKERS ?= 3
# All tests of a file run in the same process, so that they share their fixtures.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# If Python may not keep compiled files, each process of pytest compiles the modules of the tests again. That takes seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-boot-loader campaign campaign-pictures campaign-records campaign-line campaign-mutants campaign-noise campaign-disk campaign-hours campaign-attack sbom audit check format bench firmware release dashboards docs lock clean

# Prints the name of each target and the text behind its "##".
help: ## List these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python {v[0]}.{v[1]} cannot run Castline. Use Python 3.11 to 3.13: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing. On Debian, install it: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "Installing the locked packages into .venv: about 2 GB, some minutes on the first call."
	@UV_PROJECT_ENVIRONMENT=.venv $(BIN)/uv sync --frozen --inexact --compile-bytecode --no-progress --python $(BIN)/python
	@$(BIN)/castline broker --fetch-only
	@touch $(READY)

setup: $(READY) ## Install the locked packages, the Java runtime and Kafka into .venv and the cache

demo: $(READY) ## Run a simulated foundry of three lines over a real Kafka; ARGS="--seconds 60"
	@$(BIN)/castline demo $(ARGS)

test: $(READY) ## Run all tests, with real brokers, processes and simulators; ARGS="tests/..." runs some of them
	@$(PYTEST) $(ARGS)

test-fast: $(READY) ## Run the quick tests, which start no broker, board, browser, training run or whole process, in about two minutes
	@$(PYTEST) -m "not real" $(ARGS)

test-boot-loader: $(READY) ## Run the whole conformance suite of the gate protocol against a simulated Mega with its stock boot loader
	@STOCK_MEGA=all $(PYTEST) tests/firmware -k stock-mega $(ARGS)

campaign: $(READY) ## Strike a whole plant with kills, cuts, full disks and poison, and judge what it did; ARGS="--seed N --minutes M"
	@$(BIN)/python -m tests.campaign $(ARGS)

campaign-pictures: $(READY) ## Send 10,000 damaged pictures through decoder and running roles, and count the answers; ARGS="--seed N --count M"
	@$(BIN)/python -m tests.picture_mutations $(ARGS)

campaign-records: $(READY) ## Send 10,000 damaged records of each topic through running roles, and account for each; ARGS="--seed N --count M"
	@$(BIN)/python -m tests.record_campaign $(ARGS)

campaign-line: $(READY) ## Run 1,000 castings with restarts of the sorter, resets of the board and an outage of Kafka; about ten minutes
	@$(BIN)/python -m tests.line_campaign $(ARGS)

campaign-mutants: $(READY) ## Change the source code in one place at a time, and name the test that finds each change; over an hour; ARGS="--group delivery --jobs 2"
	@$(BIN)/python -m tests.mutants.campaign $(ARGS)

campaign-noise: $(READY) ## Disturb inputs, serial line and EEPROM of the board in the AVR simulator, and count what goes wrong; about ten minutes
	@$(BIN)/python -m tests.gate_noise $(ARGS)

campaign-disk: $(READY) ## Fill the broker's disk, a file system of 400 MB, and count what is left; needs root; about five minutes
	@$(BIN)/python -m tests.disk_campaign $(ARGS)

campaign-hours: $(READY) ## Run the roles in virtual time over a broker that fails as a seed says; about two hours; ARGS="--seeds N --first S --of plant"
	@$(BIN)/python -m tests.hours_campaign $(ARGS)

campaign-attack: $(READY) ## Attack station and gateway of a demo with 200 requests a second, and measure its verdicts; about a quarter of an hour; ARGS="--pairs N --seed S"
	@$(BIN)/python -m tests.attack_campaign $(ARGS)

sbom: $(READY) ## Write the bill of materials of all locked packages and jars to dist/castline.cdx.json
	@$(BIN)/python -m tests.supply_chain sbom

audit: $(READY) ## Compare the locked packages and jars with the kept list of known holes; needs no network
	@$(BIN)/python -m tests.supply_chain audit

check: $(READY) ## Check format, lint rules and types, without changing a file
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(READY) ## Format the code and apply the linter's fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## Measure throughput and latency of the inspector, and compare it with its networks alone; ARGS="--json"
	@$(BIN)/castline bench pipeline $(ARGS)

firmware: $(READY) ## Build the firmware of the board and print its flash and RAM use
	@$(BIN)/python -m firmware

release: $(READY) ## Build the wheel and the source archive of a release, with the firmware of the board, into the folder dist
	@$(BIN)/python -m firmware
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build -d dist

dashboards: $(READY) ## Generate the Grafana dashboards, alert rules and runbook from their code
	@$(BIN)/python -m dashboards.generate

docs: $(READY) ## Generate the pages of docs/: schemas, topics, settings, metrics, commands
	@$(BIN)/python -m docs.generate

lock: ## Write uv.lock again after a change of the dependencies in pyproject.toml
	@$(BIN)/uv lock

clean: ## Remove .venv, the caches and the folders var/ and dist/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache var dist
