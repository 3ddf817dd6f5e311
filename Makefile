# `make` lists the targets. Options: ARGS="..." is passed on by demo and test, JOBS=4 test files run side by side
# (more than there are cores: tests of processes wait for much of their time), PYTHON=python3.12 chooses the interpreter.
# A checkout whose tools are installed elsewhere: make check test BIN=/path/to/venv/bin STAMP=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
JOBS ?= 4
# Debian keeps the broker in /usr/sbin, which is not on everyone's path.
export PATH := $(PATH):/usr/sbin:/usr/local/sbin
# Packages are compiled as they are first imported, a third of their modules. That has to be kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: system $(STAMP) ## install all that trisect needs, into .venv (and the broker with apt); quick when nothing changed

.PHONY: demo
demo: setup ## run one network across three nodes on this machine; ARGS="..." goes to `trisect demo`
	$(BIN)/trisect demo $(ARGS)

.PHONY: check
check: setup ## the gate: format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: setup ## rewrite the code as `check` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: test
test: setup ## run the tests; ARGS="-k plan" chooses some
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: quick
quick: setup ## run the tests that start no processes and build no networks, in a few minutes
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not system and not integration and not slow" $(ARGS)

.PHONY: browser
browser: setup ## install Chromium with apt, for the tests of the page, where it is not there
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	command -v apt-get >/dev/null || { echo "no apt-get: install Chromium to run the page's tests; they are skipped" >&2; exit 0; }; \
	if [ "$$(id -u)" = 0 ]; then as_root="env"; elif command -v sudo >/dev/null; then as_root="sudo env"; \
	else echo "not root: install Chromium to run the page's tests; they are skipped" >&2; exit 0; fi; \
	echo "installing with apt: chromium"; $$as_root apt-get update -qq; \
	$$as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null

.PHONY: vendor
vendor: setup ## fetch the page's libraries again with npm, as nodes/web/vendoring.py names them
	$(BIN)/python -m nodes.web.vendoring

.PHONY: docs
docs: setup ## build the docs' site into build/site; a warning or a dead link is an error
	$(BIN)/mkdocs build --strict --quiet

.PHONY: lock
lock: setup ## renew requirements.lock from pyproject.toml
	$(BIN)/pip install --quiet uv
	{ sed -n '/^#/p' requirements.lock; $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --upgrade \
	    --extra demo --extra dev --no-header --no-annotate --no-emit-index-url pyproject.toml \
	    | grep -v '^colorama=='; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

.PHONY: clean
clean: ## remove .venv and everything that was made here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What pip cannot install. Costs nothing and asks for no rights when all of it is there.
.PHONY: system
system:
	@missing=""; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	  || { echo "trisect needs Python 3.10 or newer as $(PYTHON); choose another: make setup PYTHON=python3.12" >&2; exit 1; }; \
	[ -x $(BIN)/python ] || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing="python3-venv"; \
	command -v mosquitto >/dev/null || missing="$$missing mosquitto"; \
	command -v mosquitto_sub >/dev/null || missing="$$missing mosquitto-clients"; \
	[ -n "$$missing" ] || exit 0; \
	command -v apt-get >/dev/null \
	  || { echo "please install$${missing/#/ } with this system's package manager, then run make again" >&2; exit 1; }; \
	if [ "$$(id -u)" = 0 ]; then as_root="env"; \
	elif command -v sudo >/dev/null; then as_root="sudo env"; \
	else echo "please run as root: apt-get install $$missing; then run make again" >&2; exit 1; fi; \
	echo "installing with apt:" $$missing; \
	$$as_root apt-get update -qq; \
	$$as_root DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

# A .venv whose Python or pip is gone (an upgrade, an interrupted run) is made anew.
$(STAMP): pyproject.toml requirements.lock | system
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing Python packages into $(VENV) (the first time about 700 MB, a few minutes)"
	@$(BIN)/python -m pip install -qq --upgrade pip  # that of older Pythons takes twice as long to find its way
	@$(BIN)/python -m pip install -qq --no-compile --requirement requirements.lock
	@$(BIN)/python -m pip install -qq --no-deps --editable .
	@$(BIN)/python -m compileall -q broker nodes pipeline trisect
	@# TensorFlow side by side: else four workers of `make test` compile it, each ten seconds of processor
	@$(BIN)/python -c "import pipeline.tensorflow_runtime" & \
	$(BIN)/python -c "import nodes.cli.app, nodes.planner.node, nodes.tier.node, ai_edge_litert.interpreter, scipy.optimize"; \
	wait $$!
	@touch $@
