# `make demo` and `make test` are all a newcomer needs: each makes .venv when it is missing.
VENV ?= .venv
PYTHON ?= python3
# The CPU build of torch; a looser pin pulls gigabytes of CUDA libraries.
TORCH ?= torch==2.13.0

BIN := $(VENV)/bin
DEMO_READY := $(VENV)/.ready-demo
DEV_READY := $(VENV)/.ready-dev
# The clients that the end-to-end tests drive; from npm, without running install scripts.
CLIENTS := .e2e
OPENCODE ?= opencode-ai@1.18.33
LLM ?= llm==0.36
AIDER ?= aider-chat==0.86.2
AGENTS ?= @openai/codex@0.169.0 @anthropic-ai/claude-code@2.1.329 @continuedev/cli@1.5.47
NPM = npm install --prefix $(CLIENTS) --ignore-scripts --no-fund --no-audit

# What `make bench` runs: all but those that want a corpus or Ray, which are named by hand.
BENCHMARKS = $(filter-out benchmarks/read_corpus.py benchmarks/ray_build.py, $(wildcard benchmarks/[a-z]*.py))

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test e2e lint format types bench docs clean

export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

help:
	@echo "make demo    build and serve examples/orchard and ask it questions"
	@echo "make test    lint, types, layers and every test"
	@echo "make e2e     drive real clients (from npm and PyPI) against the real server"
	@echo "make lint | format | types | bench | docs | clean"

demo: $(DEMO_READY)
	$(BIN)/skillc demo

test: lint types
	$(BIN)/python -m pytest -q

e2e: $(DEV_READY) $(CLIENTS)/.ready-agents
	$(BIN)/python -m pytest -q -m e2e tests/e2e

lint: $(DEV_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV_READY)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV_READY) $(CLIENTS)/.ready
	missed=; for file in $(BENCHMARKS); do \
	  $(BIN)/python $$file --json || missed="$$missed $$file"; done; \
	if [ -n "$$missed" ]; then echo "not met, or could not run:$$missed"; exit 1; fi

docs: $(DEV_READY)
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_schema.py

clean:
	rm -rf $(VENV) $(CLIENTS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(CLIENTS)/.ready: Makefile | $(BIN)/python
	if command -v npm; then $(NPM) $(OPENCODE); fi
	$(BIN)/python -m pip install -q --upgrade --target $(CLIENTS)/python $(LLM)
	touch $@

# One and a half gigabytes; the tests of a client that is not there are skipped.
$(CLIENTS)/.ready-agents: $(CLIENTS)/.ready
	if command -v npm; then $(NPM) $(AGENTS); fi
	$(PYTHON) -m venv $(CLIENTS)/aider
	$(CLIENTS)/aider/bin/python -m pip install -q $(AIDER) || echo "no $(AIDER) for this Python"
	touch $@

$(VENV)/.ready-torch: | $(BIN)/python
	$(BIN)/python -m pip install -q $(TORCH)
	touch $@

$(DEMO_READY): pyproject.toml | $(VENV)/.ready-torch
	@echo "installing skillc; llama.cpp is compiled once, which takes some minutes"
	$(BIN)/python -m pip install -q -e '.[compiler]'
	touch $@

$(DEV_READY): pyproject.toml | $(VENV)/.ready-torch
	@echo "installing skillc; llama.cpp is compiled once, which takes some minutes"
	$(BIN)/python -m pip install -q -e '.[compiler,dev]'
	touch $@ $(DEMO_READY)
