# `make demo` and `make test` are all a newcomer needs: both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
URL ?=

.PHONY: demo test check bench wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make demo [URL=https://...]  the main job on this machine alone: one origin, three agents, real mDNS"
	@echo "make test                    the whole test suite"
	@echo "make check                   format, lint, strict types, layers"
	@echo "make bench                   nearfetch beside curl (and aria2c, nginx where installed)"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("nearfetch needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": name one with make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m bench demo $(if $(URL),--url '$(URL)')

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

bench: $(STAMP)
	$(BIN)/python -m bench micro
	$(BIN)/python -m bench loopback

wheel: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
