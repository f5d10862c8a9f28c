# One command for each thing that people do here. Only Python 3.11 or newer, pip and make are
# assumed: everything else goes into .venv, in the versions of constraints.txt.
#
#   make demo    install, compute potential energy curves with a ledger of their own, and draw them
#   make test    install, and run the tests, in JOBS=3 processes    ARGS="-k claim" goes to pytest
#   make lint    formatting, lint, import contracts, and both type checkers
#   make format  let ruff rewrite what it can
#   make bench   measure the whole stack                           SIZE=10000 JSON=bench.json
#   make soak    many managers on one ledger, then large tests      ARGS="--managers 200 --tasks 1000000"
#   make mutate  which changes of the rules does no test notice?    ARGS="write-path" for the database
#   make docs    regenerate the reference pages from the code
#   make up      database, API, the server's jobs and a manager    ARGS="--help" shows its options
#
# PYTHON=/path/to/python3 chooses the interpreter that .venv is made with.

VENV := .venv
# One more than processors on most machines: a third of the tests' time is waiting.
JOBS := 3
BIN := $(VENV)/bin
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

# The first one on the path that is new enough. Looked for only while there is no .venv yet.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	if "$$python" -c "$(NEW_ENOUGH)" 2>/dev/null; then echo "$$python"; break; fi; done)

# The build tools are pinned and in .venv already, so pip need not fetch others to build with.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt
INSTALL := $(PIP_INSTALL) --no-build-isolation

PYTEST := $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder
# What does more if it is asked to: see docs/testing.md.
SIZED := tests/domain tests/projections tests/acceptance tests/api/http/test_fuzz.py \
	tests/workers/jobs/test_service_machine.py

FOR_DEMO := $(VENV)/installed-for-demo
FOR_TEST := $(VENV)/installed-for-test
FOR_MUTATE := $(VENV)/installed-for-mutate
PINS := pyproject.toml constraints.txt

# Settings of the caller's own Python that would reach into .venv.
unexport PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

.NOTPARALLEL:
.PHONY: help demo test lint format bench soak mutate docs up
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#  //p' Makefile

demo: $(FOR_DEMO)
	$(BIN)/recordledger demo $(ARGS)

test: $(FOR_TEST)
	$(PYTEST) $(ARGS)

lint: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
lint: $(FOR_TEST)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -m mypy
	$(BIN)/python -m pyright

format: $(FOR_TEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(FOR_TEST)
	$(BIN)/python -m tests.benchmarks $(if $(SIZE),--size "$(SIZE)") $(if $(JSON),--json "$(JSON)")

soak: $(FOR_TEST)
	$(BIN)/python -m tests.benchmarks.soak $(if $(SIZE),--tasks "$(SIZE)") $(ARGS)
	RECORDLEDGER_TEST_SIZE=large $(PYTEST) $(SIZED)

mutate: $(FOR_MUTATE)
	nice $(BIN)/python -m tests.mutation --jobs $(JOBS) $(ARGS)

docs: $(FOR_TEST)
	$(BIN)/python docs/generate.py

up: $(FOR_DEMO)
	$(BIN)/recordledger up $(ARGS)

# Some systems ship Python without ensurepip; their pip can then put a pip into .venv.
$(BIN)/pip:
	@if ! "$(PYTHON)" -c "$(NEW_ENOUGH)" 2>/dev/null; then \
		echo "recordledger needs Python 3.11 or newer, and found none on the PATH."; \
		echo "Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; \
		exit 1; \
	fi
	@echo "making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 \
		|| { "$(PYTHON)" -m venv --without-pip $(VENV) \
		&& "$(PYTHON)" -m pip --python $(BIN)/python install --quiet pip; } \
		|| { echo "Neither venv nor pip of $(PYTHON) works here. Install both for it" \
			"(Debian, Ubuntu: the packages python3-venv and python3-pip)."; exit 1; }

$(FOR_DEMO): $(PINS) | $(BIN)/pip
	@echo "installing recordledger and what its demo draws with"
	@$(PIP_INSTALL) setuptools wheel
	@$(INSTALL) --editable '.[demo]'
	@$(call with_pyscf,$(INSTALL))
	@touch $@

$(FOR_TEST): $(PINS) | $(BIN)/pip
	@echo "installing recordledger, its demo and its development tools"
	@$(PIP_INSTALL) setuptools wheel
	@$(INSTALL) --editable '.[dev,demo]'
	@$(call with_pyscf,$(INSTALL))
	@touch $(FOR_DEMO) $@

$(FOR_MUTATE): $(FOR_TEST)
	@echo "installing what makes mutants"
	@$(INSTALL) --editable '.[mutation]'
	@touch $@

# Only as a ready-made wheel: compiling PySCF takes longer than everything else together.
with_pyscf = $(1) --only-binary pyscf,h5py --editable '.[chemistry]' \
	|| echo "PySCF cannot be installed here; the demo computes with SciPy instead."
