# `make run` starts the agent, `make test` checks it; both set up what is missing. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Every process that tests start would compile the product's modules again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
REPORTS := build/reports
# More than two cores: many tests wait for another process, and those of the real tier most of the time.
JOBS := 3
REAL_JOBS := $(if $(filter file,$(origin JOBS)),4,$(JOBS))
# Databases of these tests live in memory where there is room: nothing in them outlives its test.
IN_MEMORY := $(shell [ "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 2000000 ] 2>/dev/null && [ -w /dev/shm ] && echo TMPDIR=/dev/shm)
FAST = $(IN_MEMORY) $(BIN)/pytest -m "not real" -n $(JOBS) --dist worksteal
GITOPS := tests/gitops
IMAGE := tests/image
REAL = $(BIN)/pytest --ignore=$(GITOPS) --ignore=$(IMAGE) -m real -n $(REAL_JOBS) --dist loadfile --no-loadscope-reorder --durations=25
# What has a size for every change and a whole one before a release (tests/sizes.py).
SIZED := tests/soak tests/simulation tests/e2e/test_crashes.py tests/e2e/test_partition.py \
    tests/e2e/test_scenarios.py tests/e2e/test_upgrade_data.py
# What tries a share of its examples for every change and all of them before a release.
PROPERTIES := $(shell grep -rl --include='test_*.py' '@given' tests)
# What tries the decisions of app/agent most.
DECISIONS := $(wildcard tests/test_*.py) tests/unit tests/property tests/timeline
REAL_NEEDS := scripts/debian.sh initdb=postgresql redis-server=redis-server ip=iproute2 mvn=maven openssl=openssl \
    prometheus=prometheus prometheus-alertmanager=prometheus-alertmanager
UPGRADE :=

.PHONY: help run sandbox demo test coverage test-real test-gitops test-image soak testbed lint format docs bench release check-locks lock clean

help: ## list the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(RUNTIME) ## start the agent with its dashboard and API, on .env or the defaults (SANDBOX=1: as make sandbox)
	@$(BIN)/heal run

sandbox: $(RUNTIME) ## try the whole product over a simulated cluster: approve a rollback, watch it heal
	@$(BIN)/heal sandbox

demo: $(RUNTIME) ## run a demo incident from bad deploy to recovery in this terminal
	@$(BIN)/heal demo

test: $(DEV) ## every test that needs no cluster: unit, contract, property, timeline, API, browser
	@scripts/debian.sh initdb=postgresql chromium=chromium
	@mkdir -p $(REPORTS)
	$(FAST) --junitxml=$(REPORTS)/test.xml $(if $(ARGS),$(ARGS),tests)

coverage: $(DEV) ## branches of app/agent that its tests reach, at least 90 %; before a release
	@scripts/debian.sh initdb=postgresql
	$(FAST) --cov=app.agent --cov-report= $(DECISIONS)
	$(BIN)/coverage report --fail-under=90

test-real: $(DEV) ## against the real thing: Kubernetes, Prometheus, Kafka, Redis; crashes, soaks, partitions, simulation
	@$(REAL_NEEDS)
	@mkdir -p $(REPORTS)
	$(REAL) --junitxml=$(REPORTS)/test-real.xml $(ARGS)

test-gitops: $(DEV) ## against a real Argo CD and Flux, built from their Go modules the first time (minutes, 2 GB)
	@scripts/debian.sh redis-server=redis-server
	@mkdir -p $(REPORTS)
	$(BIN)/pytest -m real --durations=0 --junitxml=$(REPORTS)/test-gitops.xml $(GITOPS) $(ARGS)

test-image: $(DEV) ## build the image without an engine and start it: another user, read-only root, secrets as files
	@scripts/debian.sh buildah=buildah podman=podman runc=runc mmdebstrap=mmdebstrap
	@mkdir -p $(REPORTS)
	$(BIN)/pytest -m real --durations=0 --junitxml=$(REPORTS)/test-image.xml $(IMAGE) $(ARGS)

soak: $(DEV) ## the full size of both tiers: four soaks, 2,000 seeds, every crash point, every example; before a release
	@$(REAL_NEEDS)
	@mkdir -p $(REPORTS)
	TEST_SIZE=whole $(FAST) --junitxml=$(REPORTS)/soak-properties.xml $(PROPERTIES)
	TEST_SIZE=whole $(BIN)/pytest -m real -rP --durations=0 --junitxml=$(REPORTS)/soak.xml $(SIZED) $(ARGS)

testbed: $(DEV) ## start the control plane, monitoring and a sample service of test-real, and keep them up
	@$(BIN)/python -m testbed up

lint: $(DEV) ## formatting, lint, types, layers and commit messages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.check_commits

format: $(DEV) ## format the code and fix what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV) ## build the documentation as a site under build/docs, warnings as errors
	$(BIN)/sphinx-build -q -W --keep-going -j $(JOBS) -d build/docs/.doctrees -c scripts/site . build/docs/html
	@echo "build/docs/html/docs/README.html"

bench: $(DEV) ## intake throughput beside Alertmanager's, as ratios
	@scripts/debian.sh wrk=wrk prometheus-alertmanager=prometheus-alertmanager
	@$(BIN)/python -m bench.intake

release: $(DEV) ## write wheel, sdist, chart, SBOM, release notes and checksums into dist/
	@$(BIN)/python -m venv $(VENV)-release
	@$(VENV)-release/bin/pip install --quiet --disable-pip-version-check $$($(BIN)/python -c 'from scripts.release import TOOLS; print(*TOOLS)')
	@$(VENV)-release/bin/python -m scripts.release

check-locks: $(DEV) ## whether the lock files have a wheel of every package for each Python that is supported
	@scripts/check_locks.sh $(BIN)/pip

lock: ## resolve pyproject.toml into the lock files (UPGRADE=--upgrade takes newer versions)
	@scripts/lock.sh $(VENV)-lock $(UPGRADE)

clean: ## remove everything made here except databases and .env
	rm -rf $(VENV) $(VENV)-lock $(VENV)-release build dist .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

# A second `make` finds these stamps and installs nothing.
$(RUNTIME): requirements.lock pyproject.toml
	@echo "Setting up $(VENV)"
	@scripts/venv.sh $(VENV) requirements.lock
	@touch $@

$(DEV): requirements-dev.lock pyproject.toml
	@echo "Setting up $(VENV) with what tests and checks need"
	@scripts/venv.sh $(VENV) requirements-dev.lock
	@touch $(RUNTIME) $@
