# make demo    five local twins, compared: reports/latest/
# make test    the tests
# make help    the rest

PYTHON ?= python3
PY := .venv/bin/python
LIMIT ?= 300
MODEL ?= resnet18-cifar10
export PYTHON TORCH_INDEX

# Values that reach a shell. make would run what a value has in $(shell ...), so values are looked at unexpanded.
define NEWLINE


endef
SHELL_SYNTAX := ; & | < > ` $$
is_in = $(if $(findstring $(1),$(2)),yes)
is_unsafe = $(strip $(call is_in,$(NEWLINE),$(value $(1))) $(foreach sign,$(SHELL_SYNTAX),$(call is_in,$(sign),$(value $(1)))))
$(foreach name,STACK ARGS LIMIT MODEL RUN PREREQUISITES,$(if $(call is_unsafe,$(name)),$(error $(name) holds what a shell would read as more \
than arguments: one of $(SHELL_SYNTAX) or a new line)))

# `make pulumi` installs the program there, in the version of the SDK; it precedes any other on PATH.
TARGETS := aws_ec2 aws_sagemaker gcp_cloudrun gcp_function heroku
PULUMI_BIN := $(HOME)/.pulumi/versions/$(shell sed -n 's/^pulumi==//p' infra/requirements.txt)/bin
export PATH := $(PULUMI_BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo twins report test test-fast test-all test-nonroot test-root test-lesser lint format bench
.PHONY: bench-engine bench-serve
.PHONY: lighthouse costly-inputs interval-coverage report-schema golden train promote export clean lock pulumi preflight preview up
.PHONY: refresh drift unlock outputs logs down leftovers a-stack a-pulumi mutants sbom audit

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "To deploy: make pulumi, pulumi login, then with STACK one of $(TARGETS),"
	@echo "or one of these-STAGE for a second stack: make preflight, preview, up; make down, leftovers;"
	@echo "make outputs, logs, refresh, drift, unlock."
	@echo "Pulumi.<stack>.yaml lists a stack's settings. Arguments for pulumi: make up STACK=heroku ARGS=--yes"

.venv/.demo: scripts/setup/venv requirements-demo.txt requirements-torch.txt
	scripts/setup/venv requirements-demo.txt
	@touch $@

# Deploying needs no torch.
.venv/.infra: scripts/setup/venv infra/requirements.txt
	scripts/setup/venv --no-torch infra/requirements.txt
	@touch $@

.venv/.audit: scripts/setup/venv requirements-audit.txt
	scripts/setup/venv --no-torch requirements-audit.txt
	@touch $@

.venv/.dev: .venv/.demo requirements-dev.txt requirements-audit.txt requirements-training.txt infra/requirements.txt
	scripts/setup/venv requirements-demo.txt requirements-dev.txt
	@touch $@

setup: .venv/.dev ## install .venv with everything for demo and test

demo: .venv/.demo ## start five local twins with MODEL, compare them on LIMIT images (300), write reports/latest/
	./cloudtrial run --local --limit $(LIMIT) --model $(MODEL)

twins: .venv/.demo ## start the five local twins and print their addresses until Ctrl-C
	./cloudtrial twins --model $(MODEL)

report: .venv/.demo ## write the reports of RUN (reports/latest) again from its samples
	./cloudtrial report $(or $(RUN),reports/latest)

# As many processes as cores, up to four; the tests of a file stay together and share what they start.
PYTEST := $(PY) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: .venv/.dev ## run the tests that need neither root nor a browser (8 to 12 minutes); a missing tool skips its tests
	$(PYTEST) -m "not slow and not root and not browser" $(ARGS)

test-fast: .venv/.dev ## run the quick tests (90 seconds)
	$(PYTEST) -m "not slow and not root and not browser and not integration" $(ARGS)

test-all: test-nonroot test-root ## run every test

test-nonroot: .venv/.dev ## run every test that needs no root
	$(PYTEST) -m "not root" $(ARGS)

test-root: .venv/.dev ## boot the VM, build the images, send from two networks: one by one, as they use fixed ports
	$(PY) -m pytest -m root $(ARGS)

# The tests of vectorised code
ENGINE_TESTS := tests/service/engines $(addprefix tests/training/test_,export.py golden.py train.py tabular.py) \
	tests/eval/run/test_reference.py

test-lesser: .venv/.dev ## run those of engines, training, export and golden set but the slow ones, as without AVX-512 or AVX
	scripts/setup/lesser_processor $(PYTEST) -m "not slow" $(ENGINE_TESTS) $(ARGS)

lint: .venv/.dev ## run ruff, pyright, and import-linter
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright
	.venv/bin/lint-imports

format: .venv/.dev ## format the source with ruff
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: .venv/.dev ## lock the clouds' requirements, with sha256, from the .in files; ARGS=--upgrade for newer versions
	scripts/setup/lock $(ARGS)

sbom: .venv/.audit ## list what each image and archive holds, by name, version and sha256: .build/*.cdx.json (CycloneDX)
	$(PY) -m scripts.sbom

audit: .venv/.audit ## look up known vulnerabilities of what the clouds install; needs PyPI
	scripts/audit

pulumi: .venv/.infra ## install the pulumi program, in the version of the SDK
	$(PY) scripts/setup/install_pulumi.py

preflight: a-stack .venv/.demo ## check without an account whether STACK fits its target, and what it costs
	./cloudtrial preflight $(STACK) $(ARGS)

# Every Pulumi package in .venv has a provider; only those that the stack uses are downloaded, once they are needed.
OWN_PROVIDERS := --skip-plugin-pre-install
CHECKED = $(if $(filter skip,$(PREREQUISITES)),,./cloudtrial preflight $(STACK) --prerequisites -- $(ARGS))

preview: a-stack a-pulumi .venv/.infra ## show what `make up` would change in STACK
	$(CHECKED)
	pulumi stack select --create $(STACK)
	pulumi preview $(OWN_PROVIDERS) --stack $(STACK) $(ARGS)

up: a-stack a-pulumi .venv/.infra ## deploy STACK, such as aws_ec2: make up STACK=aws_ec2
	$(CHECKED)
	pulumi stack select --create $(STACK)
	pulumi up $(OWN_PROVIDERS) --stack $(STACK) $(ARGS)

refresh: a-stack a-pulumi .venv/.infra ## read into STACK's state what the cloud has: after an `up` that was interrupted
	pulumi refresh $(OWN_PROVIDERS) --stack $(STACK) $(ARGS)

drift: a-stack a-pulumi .venv/.infra ## fail if the cloud, or the source, is not what STACK was deployed as
	pulumi preview $(OWN_PROVIDERS) --refresh --expect-no-changes --stack $(STACK) $(ARGS)

unlock: a-stack a-pulumi ## free STACK of an update that ended without saying so (never one that still runs)
	pulumi cancel --stack $(STACK) $(ARGS)

outputs: a-stack a-pulumi ## print STACK's outputs: url, size, model and so on
	pulumi stack output --stack $(STACK) $(ARGS)

logs: a-stack .venv/.infra ## read STACK's log, by heroku, gcloud or aws: ARGS=--tail follows Heroku's
	./cloudtrial logs $(STACK) $(ARGS)

down: a-stack a-pulumi .venv/.infra ## destroy every resource of STACK
	pulumi destroy $(OWN_PROVIDERS) --stack $(STACK) $(ARGS)
	@echo "To list resources left after it: make leftovers STACK=$(STACK)"

leftovers: a-stack .venv/.infra ## list resources of STACK left after `make down`
	./cloudtrial leftovers --stack $(STACK) $(ARGS)

# What is left of a text without the characters of a stack's name, and those between organisation, project and stack
without = $(if $(2),$(call without,$(subst $(firstword $(2)),,$(1)),$(wordlist 2,99,$(2))),$(1))
OF_NAMES := a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9 _ - /
is_name = $(and $(filter 1,$(words $(1))),$(if $(strip $(call without,$(1),$(OF_NAMES))),,yes))

a-stack:
	@$(if $(and $(call is_name,$(STACK)),$(filter $(TARGETS),$(firstword $(subst -, ,$(notdir $(STACK)))))),,\
	$(error STACK is '$(STACK)': \
	give one of $(TARGETS), or one of these-STAGE, such as make up STACK=aws_ec2))

a-pulumi:
	@$(if $(shell PATH='$(PATH)' command -v pulumi),,$(error there is no pulumi program on PATH: make pulumi \
	installs it))

mutants: .venv/.dev ## apply mutants to the programs one by one; report which check catches each (an hour or more)
	$(PY) -m scripts.mutation $(ARGS)

interval-coverage: .venv/.demo ## simulate runs: how often the 95% intervals hold the true value (some minutes)
	$(PY) -m scripts.simulations.interval_coverage
	$(PY) -m scripts.simulations.ratio_coverage
	$(PY) -m scripts.simulations.score_coverage

report-schema: .venv/.dev ## write docs/report.schema.json again, after a change of what report.json holds
	$(PY) -m scripts.docs.report_schema

bench: .venv/.demo ## measure the rate and the send delay of one process of the harness
	$(PY) -m scripts.benchmarks.harness_client
	$(PY) -m scripts.benchmarks.harness_client --rate 100 --requests 3000

bench-engine: .venv/.demo ## measure ways to run the network on one core: the table of docs/performance.md
	$(PY) -m scripts.benchmarks.engine_variants $(ARGS)

# If they cannot be installed it says so, and the rest is measured.
.venv-baselines/.made: scripts/benchmarks/serving/setup-baselines scripts/benchmarks/serving/requirements-baselines.txt | .venv/.demo
	scripts/benchmarks/serving/setup-baselines

bench-serve: .venv/.demo .venv-baselines/.made ## measure this service beside Flask, LitServe and BentoML (11 minutes): reports/serving/
	$(PY) -m scripts.benchmarks.serving $(ARGS)

lighthouse: .venv/.demo ## Lighthouse's scores of the example's report and the form (needs nodejs, npm, chromium; 190 MB)
	$(PY) -m scripts.lighthouse $(ARGS)

costly-inputs: .venv/.dev ## search image files that cost the most CPU time for their bytes (an hour): reports/costly_inputs
	nice -n 19 $(PY) -m scripts.benchmarks.costly_inputs $(ARGS)

golden: .venv/.demo ## draw the golden set again from the shipped network (minutes)
	./cloudtrial golden

train: .venv/.demo ## train the network (hours on a CPU): runs/resnet18
	./cloudtrial train --out runs/resnet18 $(if $(wildcard runs/resnet18/checkpoint.safetensors),--resume)

promote: .venv/.demo ## turn runs/resnet18 into models/resnet18-cifar10
	./cloudtrial promote runs/resnet18

export: .venv/.dev ## write models/resnet18-cifar10/int8.onnx from its weights, checked on the test set (minutes)
	./cloudtrial export $(ARGS)

clean: ## remove .venv and caches; reports and runs stay
	rm -rf .venv .venv-baselines .build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
