# `make run` makes every figure, `make test` checks everything; both set themselves up first. `make help` lists the rest.
PYTHON    ?= python3
VENV      ?= .venv
JOBS      ?= 2
PROFILE   ?= quick
PIP_FLAGS ?=
BIN       := $(VENV)/bin
READY     := $(VENV)/.memnet-ready

.DEFAULT_GOAL := help
.PHONY: help setup run papers test lab docs readme clean

help:            ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo "  variables: PYTHON=$(PYTHON) VENV=$(VENV) JOBS=$(JOBS) PROFILE=$(PROFILE) PIP_FLAGS=$(PIP_FLAGS)"

setup: $(READY)  ## make the virtual environment and install (done once)

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "MemNet needs Python 3.10 or newer: make PYTHON=python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

run: $(READY)    ## run every experiment (quick profile) and say where the figures are
	$(BIN)/memnet run all --profile $(PROFILE) --jobs $(JOBS)

papers: $(READY) ## measure the chapters on papers that are missing or changed, and write their overview
	$(BIN)/python .ci/papers.py

test: $(READY)   ## export drift, clean notebooks, every chapter, whole-system tests
	$(BIN)/python .ci/check.py

lab: $(READY)    ## open the book in JupyterLab
	$(BIN)/jupyter trust index.ipynb nbs/*.ipynb nbs/*/*.ipynb papers/*.ipynb >/dev/null  # JupyterLab shows no SVG figure of a notebook it does not trust
	$(BIN)/jupyter lab nbs/tour.ipynb

docs: $(READY)   ## render the site into _docs (needs Quarto)
	@command -v quarto >/dev/null || \
	  { echo "Quarto is not installed: get it from https://quarto.org/docs/get-started/ and call make docs again."; exit 1; }
	trap 'rm -rf _proc nbdev.yml' EXIT; rm -rf _proc; PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nbdev_docs
	@echo "The site is in _docs/index.html"

readme: $(READY) ## make the sidebar and the map of parts from the folders, and README.md from index.ipynb
	$(BIN)/python .ci/sidebar.py
	$(BIN)/python .ci/readme.py

clean:           ## remove what the tools left (not results, not the environment)
	rm -rf _proc _docs nbdev.yml .pytest_cache build dist *.egg-info
