# Everything runs from a virtual environment of the checkout's own, made on first use.
# Only Python 3.11+, git and make need to be there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PROTO  := $(BIN)/python -m proto.build
KEEP   ?=
# Test files at once: most of them wait for a server or a lease, so two need one core.
JOBS   ?= 2

.PHONY: help demo test test-unit check format proto bench clean
help:
	@echo "make demo       the main job on real OpenBao, PostgreSQL and Envoy (KEEP=1 leaves it up)"
	@echo "make test       all tests; make test-unit: those without servers, under 30 s"
	@echo "make check      lint, types, import rules"
	@echo "make bench      the cost of a request against Envoy alone; ten thousand upstreams; a fleet's calls to Vault"
	@echo "make chaos      random faults, every answer judged (SECONDS=1800 SEED=1 MODE=ext_authz or sds)"
	@echo "make proto      build vaultauthz/_pb from proto/"

demo: $(VENV)/.demo
	@$(BIN)/vaultauthz demo $(if $(KEEP),--keep)

test: $(VENV)/.all
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-unit: $(VENV)/.all
	$(BIN)/python -m pytest tests/unit -n auto $(ARGS)

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PROTO) --check

bench: $(VENV)/.all
	$(BIN)/python benchmarks/compare.py $(ARGS)
	$(BIN)/python benchmarks/check_micro.py
	$(BIN)/python benchmarks/upstreams.py
	$(BIN)/python benchmarks/fleet.py --jobs 2

format: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/.all
	$(PROTO)

# Random faults for so long; the seed says which. See docs/chaos.md
SECONDS ?= 1800
SEED    ?= 1
MODE    ?= ext_authz
.PHONY: chaos
chaos: $(VENV)/.all
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED) --mode $(MODE) $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment -------------------------------------------------

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vaultauthz needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.13 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON) -m venv' does not work; on Debian: apt-get install python3-venv" >&2; exit 2; }

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing vaultauthz with the servers of its demo into $(VENV), once ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.all: pyproject.toml | $(VENV)/bin/python
	@echo "Installing vaultauthz and what its tests and checks need into $(VENV), once ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[check]'
	@touch $@ $(VENV)/.demo
