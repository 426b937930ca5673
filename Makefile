# The two commands of the README: `make demo` and `make test`. Both set everything up by themselves.
PYTHON ?= python3
export MDPLATFORM_HOME ?= $(CURDIR)/.mdplatform
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test bench lint lock clean
help:
	@echo "make demo    the platform from end to end, on a simulated market"
	@echo "make test    all tests"
	@echo "make bench   the benchmarks (SHORT=1: a short form)"
	@echo "make lint    formatting, lint, types, import rules"
	@echo "make setup   what the others need: a virtual environment in $(VENV)"

setup: $(STAMP)

# uv where it is there, plain venv and pip where not; versions as in requirements.lock
$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mdplatform needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (make PYTHON=… names another)")'
	@if command -v uv >/dev/null 2>&1; then \
	  { test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) $(VENV); } && \
	  uv pip install --quiet --python $(BIN)/python --constraint requirements.lock --editable '.[test]'; \
	else \
	  echo "Installing into $(VENV) (a minute or two the first time) …" && \
	  { test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); } && \
	  $(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test]'; \
	fi
	@touch $@

demo: setup
	@$(BIN)/mdplatform demo

test: setup
	@$(BIN)/python -m pytest -n 2

bench: setup
	@$(BIN)/python -m benchmarks $(if $(SHORT),--short)

lint: setup
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[test,lint]'
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# the versions that the tests ran with, taken from this environment
lock: setup
	@$(BIN)/pip freeze --exclude-editable | grep -v '^-e' > requirements.lock

clean:
	rm -rf $(VENV) .mdplatform
