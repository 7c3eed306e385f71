# Needs Python >= 3.11, make and PyPI; everything else is installed below this folder.
PYTHON ?= python3
UV := $(shell command -v uv || echo .venv-tools/bin/uv)
RUN := .venv/bin/python
ARGS ?=

.PHONY: help demo headline results simulate prove-budget test test-vllm check format bench clean
help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv-tools/bin/uv:
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@echo "Installing what is needed below this folder, once ..."
	@$(UV) sync --quiet --frozen --python $(PYTHON) --group dev --extra demo --extra train
	@touch $@

.venv-vllm/.installed: tests/integration/install_vllm.py
	$(PYTHON) tests/integration/install_vllm.py .venv-vllm
	@touch $@

demo: .venv/.synced  ## Start a small real model and the gateway, and ask questions at every tier
	@$(RUN) -m examples.demo $(ARGS)

headline: .venv/.synced .venv-vllm/.installed  ## The headline on a real vLLM: adaptive against fixed tiers at equal tokens
	$(RUN) -m examples.headline $(ARGS)

results: .venv/.synced  ## Train, measure and write docs/results.md again (DATA=folder of outcome tables)
	.venv/bin/thinkmeter results --data $(or $(DATA),$(error give DATA=folder of outcome tables)) --tiny examples/tiny_reasoner/measured/outcomes.jsonl.gz $(ARGS)

simulate: .venv/.synced  ## The budget's price controller under load, surge and shift
	.venv/bin/thinkmeter simulate $(ARGS)

prove-budget: .venv/.synced  ## Four gateways, cut streams, killed replicas, Redis restarted: no token over the window
	$(RUN) -m tests.budget.prove $(ARGS)

test: .venv/.synced  ## Run the tests (the real-vLLM suite apart)
	$(RUN) -m pytest --ignore=tests/integration $(ARGS)

test-vllm: .venv/.synced .venv-vllm/.installed  ## Run the suite against a real vLLM on the CPU
	$(RUN) -m pytest tests/integration $(ARGS)

check: .venv/.synced  ## Lint, types, import contracts, dependencies
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/deptry gateway router_model

format: .venv/.synced  ## Format and mend what can be mended
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/.synced  ## Measure throughput, latency and memory (ARGS="--peers litellm,vllm-router")
	$(RUN) -m tests.bench $(ARGS)

clean:  ## Remove what was installed and cached
	rm -rf .venv .venv-tools .venv-vllm .bench .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
