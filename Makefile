# `make` prints what there is. Everything runs in .venv; PYTHON names the Python that .venv is made with.
PYTHON ?= python3
SUPPORTED := 3.11 3.12 3.13
NEEDED := Python 3.11, 3.12 or 3.13 is needed; install one or name it: make PYTHON=python3.12
VENV := .venv
STAMP := $(VENV)/.installed
LOCK := requirements/dev.txt

VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV_WORKS = $(shell $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null && echo yes)
# PYTHON may be the one in .venv, which is removed before .venv is made again; its base is not.
BASE = $(shell $(PYTHON) -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))' 2>/dev/null)
# Folders that this user cannot write, in a checkout that root has used before, for example.
foreign = $(shell if test -e $(1); then test -w $(1); else test -w .; fi || echo yes)

# The stamp of a finished environment says where it stands and what its Python is. It is made again when it was cut
# short, copied from elsewhere, its Python is gone or updated, or another one is asked for.
FOUND = $(strip $(shell cat $(STAMP) 2>/dev/null))
MADE = $(strip $(CURDIR) $(shell test -x $(VENV)/bin/python && $(VENV)/bin/python --version))
ASKED = $(strip $(CURDIR) $(shell $(PYTHON) --version 2>/dev/null))

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format faults arq-suite bench clean again

help: ## Print this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## Make .venv from the hash-locked requirements; does nothing when it is up to date
	@:

demo: install ## Import a sample through a worker, with nothing but this checkout, and print the report
	@$(VENV)/bin/python -m worker demo

test: install ## Run every test in two processes; ARGS="-k name" goes to pytest
	@$(VENV)/bin/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: install ## Check style, types and who imports whom
	@$(VENV)/bin/python -m ruff check --no-cache .
	@$(VENV)/bin/python -m ruff format --no-cache --check .
	@$(VENV)/bin/python -m mypy $(if $(call foreign,.mypy_cache),--cache-dir=/dev/null)
	@$(VENV)/bin/lint-imports --no-cache

format: install ## Put the code into the style that lint asks for
	@$(VENV)/bin/python -m ruff check --fix .
	@$(VENV)/bin/python -m ruff format .

faults: install ## Kill workers in long imports on each engine, import a gigabyte; takes minutes; ARGS goes to it
	@$(VENV)/bin/python -m tests.faults $(ARGS)

arq-suite: install ## Download arq's own tests and run them with our worker; ARGS goes to pytest
	@$(VENV)/bin/python -m tests.arq_suite $(ARGS)

bench: install ## Measure against peers in the same run; takes minutes; ARGS goes to it
	@$(VENV)/bin/python -m bench $(ARGS)

clean: ## Remove .venv and all caches
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

ifneq ($(FOUND),$(MADE))
$(STAMP): again
else ifneq ($(origin PYTHON),file)
ifneq ($(FOUND),$(ASKED))
$(STAMP): again
endif
endif

$(STAMP): $(LOCK)
	$(if $(VERSION),,$(error PYTHON is $(PYTHON), which does not run: $(NEEDED)))
	$(if $(filter $(VERSION),$(SUPPORTED)),,$(error PYTHON is $(PYTHON), which is $(VERSION): $(NEEDED)))
	$(if $(VENV_WORKS),,$(error PYTHON is $(PYTHON), which has no venv or ensurepip to make .venv with: \
	install them (Debian: apt-get install python3-venv) or name another one: make PYTHON=python3.12))
	$(if $(call foreign,.)$(call foreign,$(VENV)),$(error $(CURDIR)/$(VENV) must be made (again) but may not be written by this user: \
	remove it as its owner, or work in a checkout of your own))
	@echo "Making $(VENV) with Python $(VERSION) from $(LOCK)"
	@base="$(BASE)" && rm -rf $(VENV) && "$$base" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $(LOCK)
	@echo "$(CURDIR) $$($(VENV)/bin/python --version)" > $(STAMP)
