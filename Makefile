# Everything that a checkout needs. Only Python 3.11+ and make have to be there already.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DURATION ?= 60s
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what each target does
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "healer needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@echo "setting up $(VENV): about a minute, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(STAMP)
	@echo "setting up the tools for tests and checks, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: install
install: $(STAMP) ## Set up .venv with healer in it

.PHONY: demo
demo: $(STAMP) ## See it work: a simulated fleet, two faults, both dealt with (DURATION=60s)
	@$(BIN)/healer demo --duration $(DURATION)

.PHONY: test
test: $(VENV)/.installed-dev ## Run the tests; says what it skipped, and how to bring that
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadgroup

CORE_TESTS := tests/unit/test_policy_*.py tests/unit/test_domain_*.py tests/unit/test_approval_policy.py tests/contract/test_journal.py

.PHONY: check
check: $(VENV)/.installed-dev ## ruff, mypy, the direction of imports, every branch of the core, the reference deployment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m pytest --quiet --numprocesses 2 --cov=healer.domain --cov=healer.policy --cov-branch \
	    --cov-report=term-missing:skip-covered --cov-fail-under=100 $(CORE_TESTS)
	$(BIN)/healer check .

.PHONY: docs
docs: $(STAMP) ## Write docs/signals.md, docs/xids.md and the exporter's counters file anew from the catalogues
	$(BIN)/python -c 'from pathlib import Path; from healer.telemetry.catalogue import table; \
	    from healer.telemetry.xids import page; Path("docs/xids.md").write_text(page.xids_page(), "utf-8"); \
	    Path("docs/signals.md").write_text(table.signals_page(), "utf-8"); \
	    Path("deploy/dcgm-exporter/counters.csv").write_text(table.counters_file(), "utf-8")'

.PHONY: kube
kube: ## Build the Kubernetes control plane for the tests, once (needs Go; minutes)
	bash tests/controlplane/build.sh

.PHONY: parts
parts: ## Fetch Prometheus 3.x and VictoriaMetrics for the tests, once (Debian: about 100 MB)
	bash tests/realparts/fetch.sh

.PHONY: lock
lock: ## Write constraints.txt anew from the newest releases that fit
	rm -rf $(VENV)-lock && $(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check '.[dev]'
	{ echo "# The releases that the tests ran with. Written by: make lock"; \
	  $(VENV)-lock/bin/python -m pip freeze --exclude healer; } > constraints.txt
	rm -rf $(VENV)-lock

.PHONY: clean
clean: ## Remove what was built here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
