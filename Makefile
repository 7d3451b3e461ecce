# Everything runs from .venv, made here from the pinned versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
# Ray decides by this whether local clusters want a token; state it, so fresh and used hosts agree.
export RAY_AUTH_MODE ?= disabled
export OMP_NUM_THREADS ?= 1

.PHONY: venv demo test lint types docs clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "the pinned packages exist for Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; run make PYTHON=/path/to/python3.11")'
	@echo 'installing the pinned packages into $(VENV): about 5 minutes, 7.6 GB'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt setuptools wheel
	$(VENV)/bin/python -m pip install --quiet --no-build-isolation -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: venv
	$(VENV)/bin/python -m jobs.demo --out demo-out

test: lint types docs
	$(VENV)/bin/python -m pytest -n 2

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports

types: venv
	$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

# Strict: a broken link or an unknown name in a page is an error (with --quiet it would not be). The variable silences an
# advertisement.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) demo-out site .pytest_cache .ruff_cache .import_linter_cache
