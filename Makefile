# `make help` lists everything. Variables: PYTHON TORCH_INDEX PROFILE FROM ONLY SEED RUN_DIR SET FORCE
PYTHON ?= python3
PROFILE ?= pocket
VENV := .venv
PY := $(VENV)/bin/python
KNOWN := PYTHON TORCH_INDEX PROFILE FROM ONLY SEED RUN_DIR SET FORCE

export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A misspelt variable would silently run the defaults.
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v))
MISSPELT := $(filter-out $(KNOWN),$(GIVEN))
ifneq ($(MISSPELT),)
$(error Unknown variable $(MISSPELT); known ones: $(KNOWN))
endif

COURSE = $(PY) -m acelib course --profile $(PROFILE) $(if $(FROM),--from $(FROM)) $(if $(ONLY),--only $(ONLY)) \
	$(if $(SEED),--set seed=$(SEED)) $(foreach one,$(SET),--set $(one)) $(if $(RUN_DIR),--run-dir $(RUN_DIR)) \
	$(if $(FORCE),--force)

.PHONY: help install course test lint notebooks pocket-models bench grid clean distclean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## Make .venv with the pinned packages (TORCH_INDEX=<index> for torch alone)

$(VENV)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 12) or sys.exit("Python %d.%d is not supported; take 3.11 or 3.12: make course PYTHON=python3.12" % v)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV); install your system's python3-venv package and repeat." >&2; exit 1; }
	@echo "Installing into $(VENV) (1.8 GB, or 5.5 GB with CUDA; minutes, once)"
	$(PY) -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.txt)"
	$(PY) -m pip install -r requirements.txt
	$(PY) -m pip install --no-deps -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(PY) -m pip install -r requirements-test.txt
	@touch $@

course: $(VENV)/.installed  ## Run notebooks 00-08 and write runs/<profile>/report.html (PROFILE= FROM= ONLY= SEED= SET= RUN_DIR= FORCE=)
	@$(COURSE)

lint: $(VENV)/.installed-test  ## ruff and the notebook rules
	$(PY) -m ruff check .
	$(PY) -m acelib lint

test: $(VENV)/.installed-test lint  ## Lint, unit tests and one smoke run of all notebooks
	$(PY) -m pytest

notebooks: $(VENV)/.installed  ## Refresh the committed outputs of the notebooks from a pocket run
	$(PY) -m acelib course
	$(PY) -m acelib course --only A1
	$(PY) -m acelib refresh

grid: $(VENV)/.installed  ## Train the comparison of notebook 08 from the artefacts of a finished course (an hour; PROFILE= RUN_DIR=)
	$(PY) -m acelib grid --profile $(PROFILE) $(if $(RUN_DIR),--run-dir $(RUN_DIR))

pocket-models: $(VENV)/.installed  ## Retrain the pocket models from nothing (up to 90 minutes on 2 cores)
	$(PY) -m acelib.pocket.train

bench: $(VENV)/.installed-test  ## Run the benchmarks in bench/
	@for file in bench/*.py; do [ -e "$$file" ] || { echo "There are no benchmarks yet."; break; }; echo "== $$file"; $(PY) $$file || exit 1; done

clean:  ## Remove runs/ and left-overs of tools
	rm -rf runs build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find acelib tests notebooks bench -name __pycache__ -o -name .ipynb_checkpoints 2>/dev/null | xargs rm -rf

distclean: clean  ## ... and .venv and .cache too
	rm -rf .venv .cache
