# Everything runs from a virtual environment of the checkout's own, made on first use.
# Only Python 3.11+, git and make need to be there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PROTO  := $(BIN)/python -m proto.build
TABLES := $(BIN)/python docs/tables.py
KEEP   ?=
# Test files at once, on two cores or more: most of them wait for a server or a lease.
JOBS   ?= 4

.PHONY: help demo test test-unit test-grpcio check format proto docs bench lock newest clean
help:
	@echo "make demo       the main job on real OpenBao, PostgreSQL and Envoy (KEEP=1 leaves it up)"
	@echo "make test       all tests; make test-unit: those without servers, under 30 s"
	@echo "                VAULTAUTHZ_TEST_VAULT=/path/to/vault: on HashiCorp's Vault in place of OpenBao"
	@echo "make test-grpcio  what faces Envoy, without pygrpc-native; VAULTAUTHZ_TEST_TRANSPORT=grpcio make test: all"
	@echo "make check      lint, types, import rules"
	@echo "make bench      the cost of a request against Envoy alone; ten thousand upstreams; a fleet's calls to Vault"
	@echo "make lock       renew what all of these install; ARGS=--keep: only for a change of pyproject.toml"
	@echo "make newest     the unit tests with the newest of everything that pyproject.toml allows; only reports"
	@echo "make mutants    which lines could be otherwise and no test would fail (ARGS=vaultauthz/core/pace.py); hours"
	@echo "make chaos      random faults, every answer judged (SECONDS=1800 SEED=1 MODE=ext_authz or sds)"
	@echo "make docs       the tables of keys in docs/, from the sections that read them"
	@echo "make proto      build vaultauthz/_pb from proto/"

demo: $(VENV)/.demo
	@$(BIN)/vaultauthz demo $(if $(KEEP),--keep)

test: $(VENV)/.all
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-unit: $(VENV)/.all
	$(BIN)/python -m pytest tests/unit -n auto --hypothesis-profile quick $(ARGS)

# What Envoy sees of us, as where there is no wheel of pygrpc-native; what stands for it in the
# contract tests is on both transports already. The whole suite: VAULTAUTHZ_TEST_TRANSPORT=grpcio make test
FACING_ENVOY := tests/contract/test_either_transport.py tests/integration/test_serve.py \
	tests/integration/test_grpc_socket.py $(wildcard tests/integration/test_envoy_*.py)
test-grpcio: $(VENV)/.all
	VAULTAUTHZ_TEST_TRANSPORT=grpcio $(BIN)/python -m pytest $(FACING_ENVOY) -n $(JOBS) --dist loadfile $(ARGS)

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PROTO) --check
	$(TABLES) --check

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

lock: $(VENV)/.lock
	$(BIN)/python requirements/lock.py $(ARGS)

docs: $(VENV)/.all
	$(TABLES)

newest: $(VENV)/.all
	@$(BIN)/python requirements/newest.py

.PHONY: mutants
mutants: $(VENV)/.mutants
	@$(BIN)/python -m tests.mutants --jobs $(JOBS) $(ARGS)

# Random faults for so long; the seed says which. See docs/chaos.md
SECONDS ?= 1800
SEED    ?= 1
MODE    ?= ext_authz
.PHONY: chaos
chaos: $(VENV)/.all
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED) --mode $(MODE) $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-newest mutants build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment -------------------------------------------------

# A Python that was asked for, by `make PYTHON=...` or in the environment, is the one that runs;
# else the one that the environment has stays.
ASKED   := $(filter command environment,$(firstword $(origin PYTHON)))
VERSION := import sys; print(sys.version.replace("\n", " "))

# Of the lock only (docs/dependencies.md), and wheels only: to build one would run what no hash holds.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED  := $(INSTALL) --require-hashes --only-binary :all:
OURS    := $(INSTALL) --no-deps --no-build-isolation -e .
LOCK    := requirements
FOR_DEMO := $(LOCK)/build.txt $(LOCK)/runtime.txt $(LOCK)/compose.txt $(LOCK)/demo.txt
FOR_ALL  := $(FOR_DEMO) $(LOCK)/test.txt $(LOCK)/check.txt

# Looked at each time, but touched only when the environment is made anew, and then so are those below.
$(VENV)/.python: FORCE
	@stands="$$($(BIN)/python -c '$(VERSION)' 2>/dev/null)"; \
	wanted="$(if $(ASKED),$$($(PYTHON) -c '$(VERSION)'),$$stands)"; \
	if [ -n "$$stands" ] && [ "$$stands" = "$$wanted" ]; then [ -e $@ ] || touch $@; exit 0; fi; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vaultauthz needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.13 ..." >&2; exit 2; }; \
	[ ! -e $(VENV) ] || echo "$(VENV) has Python $${stands:-no more}; making it anew with $$($(PYTHON) -V)"; \
	rm -rf $(VENV); $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON) -m venv' does not work; on Debian: apt-get install python3-venv" >&2; exit 2; }; \
	touch $@

.PHONY: FORCE
FORCE:

$(VENV)/.demo: pyproject.toml $(FOR_DEMO) $(VENV)/.python
	@echo "Installing vaultauthz with the servers of its demo into $(VENV), once ..."
	@$(LOCKED) -r $(LOCK)/build.txt -r $(LOCK)/demo.txt
	@$(OURS)
	@touch $@

$(VENV)/.all: pyproject.toml $(FOR_ALL) $(VENV)/.python
	@echo "Installing vaultauthz and what its tests and checks need into $(VENV), once ..."
	@$(LOCKED) -r $(LOCK)/build.txt -r $(LOCK)/check.txt
	@$(OURS)
	@touch $@ $(VENV)/.demo

$(VENV)/.lock: $(LOCK)/uv.txt $(VENV)/.python
	@$(LOCKED) -r $(LOCK)/uv.txt
	@touch $@

$(VENV)/.mutants: $(LOCK)/mutants.txt $(VENV)/.all
	@$(LOCKED) -r $(LOCK)/mutants.txt
	@touch $@
