# Taskmaster's commands. The names are a stable interface; `make` alone lists them.
#
#   CLUSTER=auto|kind|local|existing   where Taskmaster runs: kind where a Docker engine is, else a local cluster of real
#                                      Kubernetes processes; existing = the current context of kubectl, with
#                                      IMAGE_REGISTRY=host/path for the images (never chosen by auto)
#   PYTHON=/path/to/python3.11         the interpreter to make .venv with

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

python := .venv/bin/python
export PYTHONPATH := $(CURDIR)/tools
export CLUSTER ?= auto

##@ Try it
.PHONY: demo
demo: venv ## from nothing to three finished Tasks on a real cluster, which is kept
	@$(python) -m demo

.PHONY: up
up: venv ## a cluster with Taskmaster installed, kept until `make down`
	@$(python) -m demo --no-examples

.PHONY: down
down: venv ## delete that cluster (CLUSTER=existing: uninstall Taskmaster)
	@$(python) -m demo --down

.PHONY: kubeconfig
kubeconfig: venv ## print the path of its kubeconfig: export KUBECONFIG=$(make -s kubeconfig)
	@$(python) -m demo --print-kubeconfig

##@ Develop
.PHONY: venv
venv: ## the development environment in .venv, as locked
	@tools/venv

.PHONY: test
test: ## everything, end to end included
	@started=$$(date +%s); tools/venv; exec $(python) -m testtiers --started "$$started" setup unit integration e2e

.PHONY: test-unit
test-unit: venv ## the pure core, the models, the simulator: seconds, needs nothing
	@exec $(python) -m testtiers unit

.PHONY: test-integration
test-integration: venv ## coordinator and workers as processes on a real etcd and kube-apiserver
	@exec $(python) -m testtiers setup-api integration

.PHONY: test-e2e
test-e2e: venv ## install, run, kill, upgrade, uninstall on a whole cluster
	@exec $(python) -m testtiers setup e2e

.PHONY: check
check: venv ## format, lint, types, import contracts, generated files, chart
	@status=0; \
	.venv/bin/ruff format --check . || status=1; \
	.venv/bin/ruff check . || status=1; \
	.venv/bin/mypy || status=1; \
	.venv/bin/lint-imports || status=1; \
	$(python) -m taskmaster.api.crd --check crds || status=1; \
	$(python) -m taskmaster.api.crd --check charts/taskmaster/crds || status=1; \
	"$$($(python) -m localcluster tools --only helm)/helm" lint --strict --quiet charts/taskmaster || status=1; \
	exit $$status

.PHONY: crds
crds: venv ## write crds/ from the models, and the chart's copies
	@$(python) -m taskmaster.api.crd crds
	@$(python) -m taskmaster.api.crd charts/taskmaster/crds

.PHONY: bench
bench: venv ## measure: decisions, memory, writes per Task, drain rate, latency, against batch Jobs
	@status=0; \
	$(python) -m bench --core || status=1; \
	$(python) -m demo --no-examples; \
	KUBECONFIG="$$($(python) -m demo --print-kubeconfig)" $(python) -m bench --cluster || status=1; \
	exit $$status

.PHONY: lock
lock: venv ## resolve requirements/*.in into hashed locks (LOCK="--upgrade" for newer versions)
	@tools/lock $(LOCK)

.PHONY: clean
clean: ## remove what the tools wrote into this tree (not the clusters, not the caches outside)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .pytest-kind .hypothesis .import_linter_cache .grimp_cache build dist
	@find operator worker-image tools tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
