# make demo    four local twins, compared: reports/latest/
# make test    the tests
# make help    the rest

PYTHON ?= python3
PY := .venv/bin/python
LIMIT ?= 300
export PYTHON TORCH_INDEX

# `make pulumi` puts the program there, in the version of the SDK; where it is, it goes before any other.
TARGETS := aws_ec2 gcp_cloudrun gcp_function heroku
PULUMI_BIN := $(HOME)/.pulumi/versions/$(shell sed -n 's/^pulumi==//p' infra/requirements.txt)/bin
export PATH := $(PULUMI_BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo twins report test test-fast test-all test-lesser lint format bench bench-engine bench-serve
.PHONY: interval-coverage report-schema golden train promote export clean lock pulumi preflight preview up down leftovers a-stack a-pulumi mutants

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "To deploy: make pulumi, pulumi login, then with STACK one of $(TARGETS),"
	@echo "or one of these-STAGE for another of the same: make preflight, preview, up; make down, leftovers."
	@echo "What a stack needs and may set stands in Pulumi.<stack>.yaml. More for pulumi: make up STACK=heroku ARGS=--yes"

.venv/.demo: scripts/setup/venv requirements.txt requirements-torch.txt
	scripts/setup/venv requirements.txt
	@touch $@

# Deploying needs no torch.
.venv/.infra: scripts/setup/venv infra/requirements.txt
	scripts/setup/venv --no-torch infra/requirements.txt
	@touch $@

.venv/.dev: .venv/.demo requirements-dev.txt infra/requirements.txt
	scripts/setup/venv requirements.txt requirements-dev.txt
	@touch $@

setup: .venv/.dev ## make .venv with everything for demo and test

demo: .venv/.demo ## start four local twins, compare them on LIMIT images (300), write reports/latest/
	./cloudtrial run --local --limit $(LIMIT)

twins: .venv/.demo ## start the four local twins and print their addresses until Ctrl-C
	./cloudtrial twins

report: .venv/.demo ## write the reports of RUN (reports/latest) again from its samples
	./cloudtrial report $(or $(RUN),reports/latest)

# As many processes as there are cores, up to four; the tests of a file stay together and share what they start.
PYTEST := $(PY) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: .venv/.dev ## the tests that need neither root nor a browser (8 minutes); another missing tool skips its tests
	$(PYTEST) -m "not slow and not root and not browser" $(ARGS)

test-fast: .venv/.dev ## the quick ones of them, for the loop of a change (90 seconds)
	$(PYTEST) -m "not slow and not root and not browser and not integration" $(ARGS)

test-all: .venv/.dev ## every test; those that need root by themselves, as they use fixed ports and say what they did
	$(PYTEST) -m "not root" $(ARGS)
	$(PY) -m pytest -m root $(ARGS)

# All that computes with vector instructions
ENGINE_TESTS := tests/service/engines tests/training tests/eval/run/test_reference.py

test-lesser: .venv/.dev ## the tests of engines, training, export and golden set as on a lesser processor
	scripts/setup/lesser_processor $(PYTEST) $(ENGINE_TESTS) $(ARGS)

lint: .venv/.dev ## ruff, pyright, and import-linter for the direction of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright
	.venv/bin/lint-imports

format: .venv/.dev ## let ruff lay out the source
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: .venv/.dev ## lock what the clouds install, with sha256, from the .in files; ARGS=--upgrade takes newer versions
	scripts/setup/lock $(ARGS)

pulumi: .venv/.infra ## install the pulumi program, in the version that the programs are written for
	$(PY) scripts/setup/install_pulumi.py

preflight: a-stack .venv/.demo ## say without any account whether STACK will fit, and what it will cost
	./cloudtrial preflight $(STACK) $(ARGS)

preview: a-stack a-pulumi .venv/.infra ## show what `make up` would change of STACK
	pulumi stack select --create $(STACK)
	pulumi preview --stack $(STACK) $(ARGS)

up: a-stack a-pulumi .venv/.infra ## deploy STACK, such as aws_ec2: make up STACK=aws_ec2
	pulumi stack select --create $(STACK)
	pulumi up --stack $(STACK) $(ARGS)

down: a-stack a-pulumi .venv/.infra ## destroy all that STACK made
	pulumi destroy --stack $(STACK) $(ARGS)
	@echo "To see whether anything is left: make leftovers STACK=$(STACK)"

leftovers: a-stack .venv/.infra ## list resources of STACK left after `make down`
	./cloudtrial leftovers --stack $(STACK) $(ARGS)

a-stack:
	@$(if $(filter $(TARGETS),$(firstword $(subst -, ,$(notdir $(STACK))))),,$(error STACK is '$(STACK)': \
	give one of $(TARGETS), or one of these-STAGE, such as make up STACK=aws_ec2))

a-pulumi:
	@$(if $(shell PATH='$(PATH)' command -v pulumi),,$(error there is no pulumi program on PATH: make pulumi \
	installs it))

mutants: .venv/.dev ## apply mutants to the programs one by one; say which check catches each (10 minutes)
	$(PY) -m scripts.mutation $(ARGS)

interval-coverage: .venv/.demo ## over 4,000 simulated runs: how often the 95% intervals hold the truth (a minute or two)
	$(PY) -m scripts.benchmarks.interval_coverage

report-schema: .venv/.dev ## write docs/report.schema.json again, after a change of what report.json holds
	$(PY) -m scripts.docs.report_schema

bench: .venv/.demo ## timings of request, start and demo as ratios taken in one run; rate and lateness of the client
	$(PY) -m scripts.benchmarks.timing_ratios
	$(PY) -m scripts.benchmarks.harness_client

bench-engine: .venv/.demo ## ways to run the network on one core, side by side: the table of docs/performance.md
	$(PY) -m scripts.benchmarks.engine_variants $(ARGS)

# Where they cannot be had it says so, and the rest is measured.
.venv-baselines/.made: scripts/benchmarks/serving/setup-baselines scripts/benchmarks/serving/requirements-baselines.txt | .venv/.demo
	scripts/benchmarks/serving/setup-baselines

bench-serve: .venv/.demo .venv-baselines/.made ## this service beside Flask, LitServe and BentoML (11 minutes): reports/serving/
	$(PY) -m scripts.benchmarks.serving $(ARGS)

golden: .venv/.demo ## draw the golden set again from the shipped network (minutes)
	./cloudtrial golden

train: .venv/.demo ## train the network (hours on a CPU): runs/resnet18
	./cloudtrial train --out runs/resnet18 $(if $(wildcard runs/resnet18/checkpoint.safetensors),--resume)

promote: .venv/.demo ## turn runs/resnet18 into models/resnet18-cifar10
	./cloudtrial promote runs/resnet18

export: .venv/.demo ## write models/resnet18-cifar10/int8.onnx from its weights, checked on the test set (minutes)
	./cloudtrial export $(ARGS)

clean: ## remove .venv and caches; reports and runs stay
	rm -rf .venv .venv-baselines .build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
