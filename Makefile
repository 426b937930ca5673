# The two commands of the README: `make demo` and `make test`. Both set everything up by themselves.
PYTHON ?= python3
export MDPLATFORM_HOME ?= $(CURDIR)/.mdplatform
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# uv where it is there, plain venv and pip where not; versions as in requirements.lock
ifneq ($(shell command -v uv 2>/dev/null),)
NEW_VENV := uv venv --quiet --python $(PYTHON) $(VENV)
INSTALL := uv pip install --quiet --python $(BIN)/python
FREEZE := uv pip freeze --python $(BIN)/python --exclude-editable
else
NEW_VENV := $(PYTHON) -m venv $(VENV)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
FREEZE := $(BIN)/python -m pip freeze --exclude-editable
endif

.PHONY: help setup demo test bench lint lock clean
help:
	@echo "make demo    the platform from end to end, on a simulated market"
	@echo "make test    all tests (WORKERS=2 DIST=load: other than three processes, or how tests are dealt to them)"
	@echo "make bench   the benchmarks (SHORT=1: a short form)"
	@echo "make lint    formatting, lint, types, import rules"
	@echo "make setup   what the others need: a virtual environment in $(VENV)"

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mdplatform needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (make PYTHON=… names another)")'
	@echo "Installing into $(VENV) (a minute or two the first time) …"
	@test -x $(BIN)/python || $(NEW_VENV)
	@$(INSTALL) --constraint requirements.lock --editable '.[test]'
	@touch $@

demo: setup
	@$(BIN)/mdplatform demo

# many tests wait for processes of their own, so more workers than cores may use what is idle
WORKERS ?= 3
DIST ?= worksteal
test: setup
	@$(BIN)/python -m pytest -n $(WORKERS) --dist $(DIST)

bench: setup
	@$(INSTALL) --constraint requirements.lock --editable '.[test,bench]'
	@$(BIN)/python -m benchmarks $(if $(SHORT),--short)

lint: setup
	@$(INSTALL) --constraint requirements.lock --editable '.[test,lint]'
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the versions that the tests ran with, taken from this environment
lock: setup
	@$(INSTALL) --editable '.[test,lint,bench]'
	@$(FREEZE) | grep -v '^-e' > requirements.lock

clean:
	rm -rf $(VENV) $(VENV)-oldest
