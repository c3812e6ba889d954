# GNU make. `make` alone lists the targets. Another interpreter: make install PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -n logical
# Two files of tests side by side, as each may start a Ray, in the order that tests/conftest.py gives them.
TWO_FILES := --maxprocesses=2 --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install pretrain test test-all chaos check format mlflow

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target what; do \
		printf '%-16s %s\n' "$$target" "$$what"; done

install: $(INSTALLED)  ## .venv with the tested versions (Python 3.11 or newer); again only when they change

pretrain: install  ## a trained tiny GLM and its first filled blanks, in minutes on two CPU cores
	@$(BIN)/python workflows/pretrain.py --config workflows/recipes/quickstart.yaml

test: install  ## all tests but the slow ones
	@$(PYTEST) $(TWO_FILES)

test-all: install  ## every test, the README's commands as written among them
	@$(PYTEST) $(TWO_FILES) --run-slow

chaos: install  ## break a run at random for MINUTES=10 (workers, driver, checkpoints) and compare what comes of it
	@CHAOS_MINUTES=$(or $(MINUTES),10) $(BIN)/python -m pytest --run-slow -s tests/workflows/training/test_faults.py -k chaos

check: install  ## lint, formatting, types, and the unit tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(PYTEST) --maxprocesses=4 --dist=worksteal -m "not ray and not integration and not slow"

format: install  ## rewrite the sources as ruff formats them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

mlflow: install  ## the MLflow UI on the runs of ./runs, at http://127.0.0.1:5000
	@test -e runs/mlflow.db || { echo "error: ./runs has no runs yet"; echo "  try: make pretrain"; exit 2; }
	@echo "runs: http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=glm-pretraining"
	@$(BIN)/mlflow ui --backend-store-uri "sqlite:///$(CURDIR)/runs/mlflow.db"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1); Python 3.11 or newer is needed"; \
			echo "  try: make $(or $(MAKECMDGOALS),install) PYTHON=python3.12"; exit 2; }
	@echo "installing into $(VENV): the versions of constraints.txt, some minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
