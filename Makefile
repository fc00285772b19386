# make demo    four local twins, compared: reports/latest/
# make test    every test
# make help    the rest

PYTHON ?= python3
PY := .venv/bin/python
LIMIT ?= 300
export PYTHON TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help setup demo twins report test lint format bench golden train promote clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.demo: scripts/setup requirements.txt requirements-torch.txt
	scripts/setup requirements.txt
	@touch $@

.venv/.dev: .venv/.demo requirements-dev.txt
	scripts/setup requirements.txt requirements-dev.txt
	@touch $@

setup: .venv/.dev ## make .venv with everything for demo and test

demo: .venv/.demo ## start four local twins, compare them on LIMIT images (300), write reports/latest/
	$(PY) -m eval run --local --limit $(LIMIT)

twins: .venv/.demo ## start the four local twins and print their addresses until Ctrl-C
	$(PY) -m infra.local

report: .venv/.demo ## write the reports of RUN (reports/latest) again from its samples
	$(PY) -m eval report $(or $(RUN),reports/latest)

test: .venv/.dev ## every test; one that needs a missing tool is skipped and says how to get it
	$(PY) -m pytest

lint: .venv/.dev ## ruff and pyright
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

format: .venv/.dev ## let ruff lay out the source
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: .venv/.demo ## timings of demo and request, as ratios taken in one run
	$(PY) scripts/bench.py

golden: .venv/.demo ## draw the golden set again from the shipped network (minutes)
	$(PY) -m training.golden

train: .venv/.demo ## train the network (hours on a CPU): runs/resnet18
	$(PY) -m training.train --out runs/resnet18 $(if $(wildcard runs/resnet18/checkpoint.safetensors),--resume)

promote: .venv/.demo ## turn runs/resnet18 into models/resnet18-cifar10
	$(PY) -m training.promote runs/resnet18

clean: ## remove .venv and caches; reports and runs stay
	rm -rf .venv .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
