# Everything a contributor or a first-time user needs. `make help` lists it.
#
#   PYTHON=python3.12   the interpreter the environment is made with (3.11 or newer)
#   ARGS="..."          passed on to `hubbub run` or to the bench
#   PYTEST_ARGS="..."   passed on to pytest: make test PYTEST_ARGS="-k relay"

PYTHON ?= python3
ARGS ?=
PYTEST_ARGS ?=

ON_POSTGRES := tests/hub/web tests/hub/test_request.py tests/hub/test_retention.py tests/adapters/relay tests/adapters/octohub tests/chaos/test_stream_worker.py \
	--ignore=tests/hub/web/test_openapi.py --ignore=tests/hub/web/test_openapi_of_others.py

VENV := .venv
BIN := $(VENV)/bin
MADE := $(VENV)/.made
FOR_RUN := $(VENV)/.installed-run
FOR_TEST := $(VENV)/.installed-test
PINS := pyproject.toml constraints.txt

# Through the environment the pins also reach the isolated build of the package itself: the first name is
# for pip before 25.3, the second for pip from there on; each ignores the other.
PIP_INSTALL := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	$(BIN)/python -m pip install --quiet -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run install test test-postgres check lint types imports format bench clean

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(FOR_RUN) ## start the hub in the foreground; ARGS="--set hub.port=18000"
	@exec $(BIN)/hubbub run $(ARGS)

install: $(FOR_TEST) ## make .venv with everything a developer needs

test: lint types imports ## format check, lint, types, import arrows, all tests
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

test-postgres: $(FOR_TEST) ## what has to do with the store once more, on PostgreSQL; skipped where there is none
	HUBBUB_TEST_STORE=postgres $(BIN)/python -m pytest -n 2 $(ON_POSTGRES)

check: test ## what CI runs: the tests, then the shipped hub.toml
	$(BIN)/hubbub check

lint: $(FOR_TEST) ## formatter (check only) and linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(FOR_TEST) ## both type checkers
	$(BIN)/mypy
	$(BIN)/basedpyright

imports: $(FOR_TEST) ## who may import whom
	$(BIN)/lint-imports

format: $(FOR_TEST) ## format, and mend what the linter can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: $(FOR_TEST) ## measure; ARGS are those of tests/bench
	PYTHONPATH=. $(BIN)/python -m tests.bench $(ARGS)

clean: ## remove .venv, builds and caches; var/ (your data) stays
	rm -rf $(VENV) dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Hubbub needs Python 3.11 or newer. Name one: make PYTHON=python3.12 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(FOR_RUN): $(MADE) $(PINS)
	$(PIP_INSTALL) -e .
	@touch $@

$(FOR_TEST): $(MADE) $(PINS)
	$(PIP_INSTALL) -e '.[dev,postgres,cel]'
	@touch $(FOR_RUN) $@
