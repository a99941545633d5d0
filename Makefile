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

quoted = '$(subst ','\'',$(1))'
# Does the profile want a GPU, and packages for it? Asked before anything is installed.
WANTED := $(shell $(PYTHON) acelib/core/inheritance.py $(call quoted,$(PROFILE)) $(foreach one,$(SET),$(call quoted,$(one))))
GPU := $(filter cuda,$(WANTED))
INSTALLED := $(VENV)/.installed$(if $(GPU),$(if $(filter vllm nf4,$(WANTED)),-gpu))

# The oldest NVIDIA driver that CUDA 13.0 takes.
DRIVER := 580

COURSE = $(PY) -m acelib course --profile $(call quoted,$(PROFILE)) \
	$(if $(FROM),--from $(call quoted,$(FROM))) $(if $(ONLY),--only $(call quoted,$(ONLY))) \
	$(if $(SEED),--set seed=$(call quoted,$(SEED))) $(foreach one,$(SET),--set $(call quoted,$(one))) \
	$(if $(RUN_DIR),--run-dir $(call quoted,$(RUN_DIR))) \
	$(if $(FORCE),--force)

.PHONY: help gpu install course doctor test test-fast lint notebooks exercises site links pocket-models bench grid worlds clean distclean
.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## Make .venv with the pinned packages (TORCH_INDEX=<index> for torch alone; PROFILE=)

gpu:  ## Is there a GPU? (asked before anything is installed or run where the profile says `device: cuda`)
	@nvidia-smi -L 2>/dev/null | grep -q '^GPU' || { echo "Profile $(PROFILE) needs an NVIDIA GPU, and nvidia-smi shows none; repeat this on a machine with one and its driver, or take PROFILE=pocket." >&2; exit 1; }
	@[ -n $(call quoted,$(TORCH_INDEX)) ] || [ -e $(INSTALLED) ] || old=$$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | awk -F. '$$1 ~ /^[0-9]+$$/ && $$1 < $(DRIVER) { print; exit 1 }') || { echo "The NVIDIA driver here is $$old, and the pinned PyTorch (CUDA 13.0) needs $(DRIVER) or newer; take a machine with a newer driver or update this one's, or, for a profile without vLLM, repeat this with TORCH_INDEX=https://download.pytorch.org/whl/cu126 or the index of another CUDA that this driver bears." >&2; exit 1; }

$(VENV)/.installed: requirements.txt pyproject.toml | $(if $(GPU),gpu)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 12) or sys.exit("Python %d.%d is not supported; take 3.11 or 3.12: make course PYTHON=python3.12" % v)'
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV); install your system's python3-venv package and repeat." >&2; exit 1; }
	@echo "Installing into $(VENV) (1.8 GB, or 5.5 GB with CUDA; minutes, once)"
	$(PY) -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.txt)"
	$(PY) -m pip install -r requirements.txt
	$(PY) -m pip install --no-deps -e .
	@touch $@

# Also where a CPU build of torch was installed before, for `pocket`: it satisfies the pin and sees no GPU.
$(VENV)/.installed-gpu: $(VENV)/.installed requirements-gpu.txt | gpu
	@echo "Adding vLLM and DeepSpeed to $(VENV) for $(PROFILE) (gigabytes more, some 20 GB with all caches by our guess; once)"
	@$(PY) -c 'import sys, torch; sys.exit(torch.version.cuda is None)' || $(PY) -m pip uninstall -y torch
	$(PY) -m pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.txt)"
	$(PY) -m pip install -r requirements-gpu.txt
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(PY) -m pip install -r requirements-test.txt
	@touch $@

course: $(INSTALLED)  ## Run notebooks 00-10 and write runs/<profile>/report.html; a profile with `device: cuda` and vLLM or 4 bits installs requirements-gpu.txt, too (PROFILE= FROM= ONLY= SEED= SET= RUN_DIR= FORCE=)
	@$(COURSE)

doctor: $(VENV)/.installed  ## Versions, machine, isolation and checks, as text to paste into an issue (PROFILE= RUN_DIR=)
	@$(PY) -m tools.doctor --profile $(call quoted,$(PROFILE)) $(if $(RUN_DIR),--run-dir $(call quoted,$(RUN_DIR)))

lint: $(VENV)/.installed-test  ## Seconds: ruff, the layout of files, what may import what, the notebook rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache --no-logo
	$(PY) -m tools.notebooks lint

# Three at a time, also on two cores, for those on Ray wait more than they compute; they stay together.
PYTEST := $(PY) -m pytest -n 3 --dist loadgroup

test: lint  ## Everything that CI asks: lint, all tests, one smoke run of all notebooks
	$(PYTEST)

test-fast: lint  ## While you change a line: lint and the quick tests
	$(PYTEST) -m "not slow"

notebooks: $(VENV)/.installed  ## Refresh the committed outputs of the notebooks from a pocket run
	$(PY) -m acelib course
	for number in A1 A2 A3 A4 A5 A6; do $(PY) -m acelib course --only $$number || exit; done
	$(PY) -m tools.notebooks refresh

exercises: $(VENV)/.installed-test  ## Write the exercises of the notebooks from notebooks/solutions/
	$(PY) notebooks/solutions/build.py

# Apart from .venv: who reads on the web needs no torch, and who runs the course needs no Sphinx.
.cache/site/.installed: requirements-site.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install -r requirements-site.txt
	@touch $@

site: .cache/site/.installed  ## Make the book of the notebooks as committed, to be read without a network: build/site/index.html
	rm -rf build/site
	$(<D)/bin/python -m sphinx -q -W --keep-going -d .cache/site/pages -c docs/site . build/site
	@echo "Open build/site/index.html"

links: .cache/site/.installed  ## Ask every link of the book that leads outside whether it still answers (minutes, and a network)
	$(<D)/bin/python -m sphinx -q -b linkcheck -d .cache/site/pages -c docs/site . build/links

grid: $(VENV)/.installed  ## Train the comparison of notebook 08 from the artefacts of a finished course (75 minutes; PROFILE= RUN_DIR=)
	$(if $(FROM)$(ONLY)$(SEED)$(SET)$(FORCE),$(error make grid knows PROFILE= and RUN_DIR= alone; put other values into a profile of your own))
	$(PY) -m experiments.grid --profile $(call quoted,$(PROFILE)) $(if $(RUN_DIR),--run-dir $(call quoted,$(RUN_DIR)))

worlds: $(VENV)/.installed  ## Train the pocket policy anew, with votes, fainter ones and none, and the teacher, and run 01-07 with each, for notebook 10 (six hours)
	$(if $(FROM)$(ONLY)$(SEED)$(SET)$(FORCE)$(RUN_DIR)$(filter-out pocket,$(PROFILE)),$(error make worlds takes no variable; .venv/bin/python -m experiments.worlds --help says what can be chosen))
	$(PY) -m experiments.worlds

pocket-models: $(VENV)/.installed  ## Retrain the pocket models from nothing (up to 90 minutes on 2 cores)
	$(PY) -m acelib.pocket.train

bench: $(VENV)/.installed-test  ## Run the benchmarks in bench/
	@for file in bench/*.py; do [ -e "$$file" ] || { echo "There are no benchmarks yet."; break; }; echo "== $$file"; $(PY) $$file || exit 1; done

clean:  ## Remove runs/ and left-overs of tools; replies you paid for (runs/*/paid.jsonl) stay
	@if [ -d runs ]; then find runs ! -type d ! -name paid.jsonl -delete; find runs -depth -type d -empty -delete; fi
	rm -rf build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find acelib tests notebooks bench -name __pycache__ -o -name .ipynb_checkpoints 2>/dev/null | xargs rm -rf

distclean: clean  ## ... and .venv, .cache and the replies you paid for, too
	@find runs -name paid.jsonl 2>/dev/null | sed 's/^/Removing replies that were paid for: /'
	rm -rf runs .venv .cache
