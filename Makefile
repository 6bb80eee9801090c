# Everything that a contributor runs. PYTHON is the interpreter of the environment to use.
PYTHON ?= python

.PHONY: demo test test-all check audit format lint types docs release

demo:            ## generated scenes, three schedulers, one comparison (./vidseg-demo)
	$(PYTHON) -m jobs.demo

test:            ## all tests, in two processes
	$(PYTHON) -m pytest -n 2

test-all:        ## all tests, properties with several hundred examples each
	HYPOTHESIS_PROFILE=all $(PYTHON) -m pytest -n 2

check: lint types audit test

audit:           ## versions and licences of all that is installed; with a network also: pip-audit -r constraints.txt
	$(PYTHON) -m tests.audit

format:          ## rewrite the files in the house format
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

lint:            ## format and lint, changing nothing
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

docs:            ## API reference from the docstrings, into build/docs
	$(PYTHON) -m pdoc --output-directory build/docs vidseg_core

release:         ## the wheel of this version in dist/, tried in a fresh environment; publishes nothing
	PYTHON=$(PYTHON) .ci/release

types:
	$(PYTHON) -m pyright --pythonpath $$($(PYTHON) -c 'import sys; print(sys.executable)')
