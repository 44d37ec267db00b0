# `make help` lists the targets.
#
# DEMO=...    arguments of `fenhe demo`, e.g. make demo DEMO="--once --json"
# BENCH=...   arguments of the benchmarks, e.g. make bench BENCH="hop_single --quick"
# SEEDS=..., SEED=..., BUGS=...   how many schedules to simulate, the one to replay, or how many
#             to hunt each planted bug in
# MINUTES=..., CHAOS_SEED=...   how long `make chaos` goes on, and which faults it plans
# PYTHON=...  the interpreter the virtual environment is made with (3.11 or newer)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
DEMO ?=
BENCH ?=
SEEDS ?= 5000
SEED ?=
BUGS ?=
WORKERS ?= 3
MINUTES ?= 3
CHAOS_SEED ?= 1

export PYTHON
BIN := .venv/bin
ROOMS := hierarchy_config hardware_profiles replication federation node
CODE := setup.py tests $(ROOMS) $(wildcard benchmarks)
# Cheapest first. Every file keeps to one worker: its servers are started
# once. Workers wait for disks and processes more than they compute: one more than the cores of a small
# machine.
FLOORS := unit property contracts simulation services chaos
FLOORS_HERE := $(foreach floor,$(FLOORS),$(if $(wildcard tests/$(floor)),$(floor)))
PYTEST := $(BIN)/python -m pytest -q -p no:cacheprovider

.PHONY: help setup setup-dev services-installed demo test house check $(FLOORS) bench protos lock simulate chaos power links clean sbom

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv with what the demo needs
	@.ci/setup demo

setup-dev: ## make .venv with what the tests need too
	@.ci/setup dev

services-installed:
	@.ci/packages mariadbd=mariadb-server redis-server=redis-server

demo: setup ## run a slice of Linfen on this machine, then stay up until Ctrl-C
	@exec $(BIN)/fenhe demo $(DEMO)

test: setup-dev services-installed house check ## run everything, cheapest first
	@for floor in $(FLOORS_HERE); do \
	  echo "== $$floor" && $(PYTEST) -n $(WORKERS) --dist loadfile "tests/$$floor"; \
	done

house: setup-dev ## limits, names, protos and documents
	@echo "== house" && $(PYTEST) tests/house

check: setup-dev ## lint, format, types, imports, protos, security
	@echo "== check"
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports --no-cache | tail -n 3
	@$(BIN)/buf lint
	@$(BIN)/bandit -q -c pyproject.toml -r $(ROOMS) setup.py

$(filter-out chaos,$(FLOORS)): setup-dev services-installed
	@$(PYTEST) -n $(WORKERS) --dist loadfile tests/$@

bench: setup-dev services-installed ## print the benchmarks as ratios
	@$(BIN)/python -m benchmarks $(BENCH)

protos: setup-dev ## generate the protocol code beside each .proto
	@$(BIN)/python setup.py -q build_protos

# With the oldest Python that is supported, Debian 12's 3.11.2: it needs the most packages.
lock: ## write the lock files anew (needs pip-compile of the oldest Python on the PATH)
	@for kind in demo dev; do \
	  pip-compile -q --generate-hashes --strip-extras --allow-unsafe --no-header --no-annotate \
	    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	    --extra $$kind -o requirements/$$kind.txt setup.py requirements/build.in; \
	done

# What a node consists of: every runtime package of the lock, with the digests of its files.
sbom: setup-dev ## write build/sbom.cdx.json, the packages of a node (CycloneDX)
	@mkdir -p build
	@$(BIN)/cyclonedx-py requirements --output-reproducible --of JSON -o build/sbom.cdx.json \
	  requirements/demo.txt
	@echo build/sbom.cdx.json

chaos: setup-dev services-installed ## fifteen real nodes under faults: MINUTES=3 CHAOS_SEED=1
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(CHAOS_SEED)

power: setup-dev services-installed ## cut the power of SQLite and MariaDB stores under load
	@$(BIN)/python -m tests.chaos.power

links: setup-dev ## how long a village takes to catch up over bad lines
	@$(BIN)/python -m tests.chaos.links

simulate: setup-dev ## replay schedules of the replication simulator: SEEDS=5000, or SEED=42
	@$(BIN)/python -m tests.simulation \
	  $(if $(BUGS),--bugs $(BUGS),$(if $(SEED),--seed $(SEED),--seeds $(SEEDS)))

clean: ## remove the virtual environment, caches and build output
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
