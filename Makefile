# Everything runs from .venv in this folder, whatever environment is active outside.
# `make setup UV=` installs with pip even where uv is found; `make test ARGS=tests/nets` runs a part of the tests.

unexport VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE UV_PYTHON

# Asked for its version, not only looked for: a pyenv shim can be on PATH and still not run.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)
PYTHON := .venv/bin/python
INSTALLED := .venv/.installed
DOCS_INSTALLED := .venv/.installed-docs
AUDIT_INSTALLED := .venv/.installed-audit
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

ifneq ($(UV),)
CREATE_VENV = uv venv --python '>=3.11,<3.14' .venv
INSTALL = uv pip install --python $(PYTHON)
else
CREATE_VENV = for python in python3 python3.13 python3.12 python3.11 none; do \
	  "$$python" -c '$(SUPPORTED)' 2>/dev/null && break; \
	done; \
	[ "$$python" != none ] || { echo "densemble needs Python 3.11, 3.12 or 3.13 on PATH (or uv, which brings one)" >&2; exit 1; }; \
	"$$python" -m venv .venv
# A .venv that uv made has no pip of its own.
INSTALL = $(PYTHON) -m ensurepip >/dev/null && $(PYTHON) -m pip install
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: setup demo test slow stress check docs figures mutations audit bench clean help

setup: $(INSTALLED)  ## make .venv and install densemble with its tools into it

demo: $(INSTALLED)  ## train, assemble, predict and report on generated data, offline, in two minutes
	rm -rf demo-output
	.venv/bin/densemble demo -o demo-output

test: $(INSTALLED)  ## run the tests
	$(PYTHON) -m pytest $(ARGS)

slow: $(INSTALLED)  ## run the tests that make test leaves out: all sampled backbones, wall-clock limits
	$(PYTHON) -m pytest -m slow $(ARGS)

stress: $(INSTALLED)  ## kills, full disks, hostile files, failing members: all cases, with a table of what happened
	$(PYTHON) -m pytest -m stress tests/robustness $(ARGS)

check: $(INSTALLED)  ## lint, format, types, then the tests: what a change must pass
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest $(ARGS)

docs: $(DOCS_INSTALLED)  ## build the documentation site into build/website/site; warnings are errors
	$(PYTHON) website/build.py

figures: $(INSTALLED)  ## print every figure of README, docs and CHANGELOG with its result file, or fail
	$(PYTHON) benchmarks/figures.py

mutations: $(INSTALLED)  ## 60 seeded mutations of metrics, ensemble, selection; at least 54 must be killed
	$(PYTHON) benchmarks/mutations.py

audit: $(AUDIT_INSTALLED)  ## known vulnerabilities (where the advisory service answers) and licences of all dependencies
	$(PYTHON) benchmarks/audit.py

bench: $(INSTALLED)  ## run every benchmark; JSON goes to benchmarks/results
	@set -e; for benchmark in benchmarks/bench_*.py; do echo "$$benchmark"; $(PYTHON) "$$benchmark"; done

clean:  ## remove caches and demo-output; .venv, runs and weights stay
	rm -rf demo-output build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

# The stamp is written last and lies inside .venv: an installation that broke off is never taken for a whole one.
$(INSTALLED): pyproject.toml constraints.txt
	@rm -f $@
	@$(PYTHON) -c '$(SUPPORTED)' 2>/dev/null || { rm -rf .venv; $(CREATE_VENV); }
	$(INSTALL) -c constraints.txt -e '.[dev,notebook]'
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(INSTALL) -c constraints.txt -e '.[docs]'
	@touch $@

$(AUDIT_INSTALLED): $(INSTALLED)
	$(INSTALL) -c constraints.txt -e '.[audit]'
	@touch $@
