# Everything a person types. `make run` and `make test` set up what they need by themselves; `make help` lists the rest.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
# The newest suitable Python on the PATH; `make PYTHON=/path/to/python3.13 run` takes another one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; exit; }; done; echo python3)
CODE := chassis contracts gateway link_service writer analytics webhook audit linkmesh
PYTEST := $(BIN)/pytest
ARGS ?=

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

.PHONY: run
run: $(VENV)/.local ## Start everything on this machine (ARGS="--free-ports" …); Ctrl-C drains and stops it
	@$(BIN)/linkmesh up $(ARGS)

.PHONY: test
test: lint types unit contract model operate integration e2e chaos-short ## Everything that decides whether a change is good

.PHONY: lint
lint: $(VENV)/.dev ## Form, imports, protos, locks
	@$(BIN)/ruff format --check --quiet . || { echo "run: make fmt"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-cache >$(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@$(BIN)/buf lint
	@$(BIN)/buf breaking --against protos/released.binpb
	@$(BIN)/python tools/generate_protos.py --check
	@$(BIN)/python tools/locks.py --check
	@$(BIN)/python tools/hosts.py
	@$(BIN)/python tools/rules.py >$(VENV)/rules.log
	@echo "lint: good"

.PHONY: types
types: $(VENV)/.dev ## mypy --strict
	@$(BIN)/mypy .

.PHONY: unit
unit: $(VENV)/.dev ## Tests of pure code: no sockets, no engines
	@$(PYTEST) tests/unit $(ARGS)

.PHONY: contract
contract: $(VENV)/.dev engines ## One suite per port, on the fake and on the real adapter
	@$(PYTEST) tests/contract $(ARGS)

.PHONY: model
model: $(VENV)/.dev ## Every state the link protocol can reach, within bounds (ARGS=--large: larger ones, by hand)
	@$(PYTEST) tests/model $(ARGS)

.PHONY: integration
integration: $(VENV)/.dev engines ## Parts of a process on real engines
	@$(PYTEST) tests/integration $(ARGS)

.PHONY: e2e
e2e: $(VENV)/.dev engines ## The whole system, as a user sees it
	@$(PYTEST) tests/e2e $(ARGS)

.PHONY: chaos-short
chaos-short: $(VENV)/.dev engines ## Three minutes of kills and hangs under load, then a judgement
	@$(PYTEST) tests/chaos $(ARGS)

.PHONY: chaos
chaos: $(VENV)/.dev engines ## The same for 24 minutes, with everything that can break (ARGS="--seed N --minutes M")
	@$(BIN)/python -m tests.chaos --minutes 23 $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.dev engines ## Break each safeguard once, in a copy: a named test must turn red (ARGS="--only NAME", --list)
	@$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: mutants-long
mutants-long: $(VENV)/.dev engines ## The same for safeguards that only show on Kafka, or when a process is killed
	@$(BIN)/python -m tests.mutants --long $(ARGS)

.PHONY: operate
operate: $(VENV)/.dev ## Manifests, image and alerts
	@$(PYTEST) tests/operate $(ARGS)

.PHONY: bench
bench: $(VENV)/.dev engines ## Redirects and creates beside nginx (ARGS="--peer name=script": and others)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: bench-clicks
bench-clicks: $(VENV)/.dev engines ## A minute at 10 000 redirects a second, at three paces of flushes
	@$(BIN)/python -m bench.clicks $(ARGS)

.PHONY: bench-profile
bench-profile: $(VENV)/.dev ## Where the microseconds of a redirect go, step by step
	@$(BIN)/python -m bench.ladder $(ARGS)

.PHONY: bench-counting
bench-counting: $(VENV)/.dev engines ## What a click costs analytics alone, flushes included
	@$(BIN)/python -m bench.counting $(ARGS)

.PHONY: bench-pipeline
bench-pipeline: $(VENV)/.dev engines ## Relay, creates at fixed rates, recovery after kills
	@$(BIN)/python -m bench.pipeline $(ARGS)

.PHONY: bench-writer
bench-writer: $(VENV)/.dev engines ## What the writer stores a second, and what an event costs
	@$(BIN)/python -m bench.writer $(ARGS)

.PHONY: fmt
fmt: $(VENV)/.dev ## Format and repair what can be repaired
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

.PHONY: protos
protos: $(VENV)/.dev ## Generate protos/gen
	@$(BIN)/python tools/generate_protos.py

.PHONY: rules
rules: $(VENV)/.dev ## Each rule of docs/PROTOCOLS.md with the tests that prove it
	@$(BIN)/python tools/rules.py

.PHONY: lock
lock: $(VENV)/.dev ## Resolve requirements/ again (ARGS=--upgrade: to the newest)
	@$(BIN)/python tools/locks.py $(ARGS)

.PHONY: engines
engines: $(VENV)/.local ## Fetch Kafka, DynamoDB and Zipkin into the user's cache
	@$(BIN)/linkmesh fetch >/dev/null

.PHONY: clean
clean: ## Remove environment, caches and builds; data in .linkmesh and the engines' cache stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up. A stamp per lock file: it is repeated when the lock or pyproject.toml is newer.
# The installer comes by pip, hash-locked; it installs the rest 13 times faster than pip does (5 s instead of 66 s).
$(BIN)/uv: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "linkmesh needs Python 3.11 or newer; install it, or: make PYTHON=/path/to/python3.13 …" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "linkmesh needs Python's venv module: apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.local $(VENV)/.dev: $(VENV)/.%: requirements/%.txt requirements/build.txt pyproject.toml $(BIN)/uv
	@echo "installing requirements/$*.txt into $(VENV)" >&2
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/build.txt -r requirements/$*.txt || \
		{ echo "uv cannot; trying pip, which knows other mirrors but takes a minute" >&2 && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements/build.txt -r requirements/$*.txt; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
