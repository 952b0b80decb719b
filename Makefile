# What CI calls; `make help` lists it.
PYTHON ?= python3.11
# On a machine that can reach the CPU wheels: make setup TORCH_BACKEND=cpu
TORCH_BACKEND ?=
BIN := .venv/bin
PACKAGES := core ingestion feature_store trainer batch_ranker gateway simulator cli
EDITABLE := $(foreach p,$(PACKAGES),-e services/$(p)) -e feature_repo

.PHONY: help setup demo test test-long lint format docs bench
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

setup: .venv/ready ## the virtual environment, with everything pinned by constraints.txt

.venv/ready: constraints.txt pyproject.toml feature_repo/pyproject.toml $(foreach p,$(PACKAGES),services/$(p)/pyproject.toml)
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt \
		$(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) $(EDITABLE) --group dev
	@touch $@

demo: setup ## a simulated world: two readers' feeds, and how likes change one of them
	@$(BIN)/feedrank demo $(DEMO)

# Two test processes with two threads each wait for each other's threads on two cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -rs --dist loadfile
# Unit tests apart: a client's thread that waits for a gone server draws from `random`, and
# Hypothesis takes that for a strategy's doing. The others wait a fifth of their time for servers,
# so three share two cores; the longest files come first.
test: setup ## every test that this machine can run, but those that take many minutes
	@$(PYTEST) -n 2 -m "not long" tests/unit tests/contract
	@$(PYTEST) -n 3 --no-loadscope-reorder -m "not long" tests/e2e tests/integration

test-long: setup ## the tests that take many minutes: kills, erasure, Spark, the loop on Kafka
	@$(PYTEST) -n 2 -m long

lint: setup ## style, types and the direction of imports
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports && $(BIN)/pyright

format: setup ## put the code into the house style
	@$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

docs: setup ## schemas and pages drawn from the code
	@$(BIN)/python -m feedrank_core.contracts.schemas_dump
	@$(BIN)/python -m feedrank_cli.generate_docs docs

bench: setup ## every measurement, each with the floor of the same run
	@$(BIN)/feedrank bench all
