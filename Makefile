# `make` prints what there is. Everything runs in .venv; PYTHON names the Python that it is made with.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
LOCK := requirements/dev.txt

# What the stamp says of a finished environment: where it stands and its Python. One that was copied from elsewhere,
# whose Python is gone or is not the one asked for, or that was cut short while it was made is made again.
IDENTITY = $(CURDIR) $(shell $(VENV)/bin/python --version 2>&1)
ASKED = $(if $(filter file default undefined,$(origin PYTHON)),,$(CURDIR) $(shell $(PYTHON) --version 2>&1))
HELD = $(shell cat $(STAMP) 2>/dev/null)

# The base Python: PYTHON itself may be the one in .venv, which is removed first.
BASE = $(shell $(PYTHON) -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null)
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV_WORKS = $(shell $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null && echo yes)
SUPPORTED := 3.11 3.12 3.13

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench clean again

help: ## Print this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

install: $(STAMP) ## Make .venv from the hash-locked requirements; does nothing when it is up to date

demo: install ## Import a sample through a worker, with nothing but this checkout, and print the report
	@$(VENV)/bin/python -m worker demo

test: install ## Run every test; ARGS="-k name" goes to pytest
	@$(VENV)/bin/python -m pytest $(ARGS)

lint: install ## Check style, types and who imports whom
	@$(VENV)/bin/python -m ruff check .
	@$(VENV)/bin/python -m ruff format --check .
	@$(VENV)/bin/python -m mypy
	@$(VENV)/bin/lint-imports

format: install ## Put the code into the style that lint asks for
	@$(VENV)/bin/python -m ruff check --fix .
	@$(VENV)/bin/python -m ruff format .

bench: install ## Measure against peers (other job queues) in the same run; takes minutes
	@$(VENV)/bin/python -m bench $(ARGS)

clean: ## Remove .venv and all caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ifneq ($(HELD),$(strip $(IDENTITY)))
$(STAMP): again
else ifneq ($(ASKED),)
ifneq ($(HELD),$(strip $(ASKED)))
$(STAMP): again
endif
endif

$(STAMP): $(LOCK)
	$(if $(VERSION),,$(error PYTHON is $(PYTHON), which does not run: Python 3.11, 3.12 or 3.13 is needed; install one or name it: make PYTHON=python3.12))
	$(if $(filter $(VERSION),$(SUPPORTED)),,$(error PYTHON is $(PYTHON), which is Python $(VERSION): 3.11, 3.12 or 3.13 is needed; install one or name it: make PYTHON=python3.12))
	$(if $(VENV_WORKS),,$(error PYTHON is $(PYTHON), which lacks venv or ensurepip: they make the environment; install them (Debian: apt-get install python3-venv) or name another Python: make PYTHON=python3.12))
	@echo "Making $(VENV) with Python $(VERSION) from $(LOCK)"
	@base='$(BASE)' && rm -rf $(VENV) && "$$base" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@echo "$(CURDIR) $$($(VENV)/bin/python --version)" > $(STAMP)
