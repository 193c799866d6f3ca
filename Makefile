# make demo     the whole road on MovieLens-100K: install, fetch, prepare, train, export, evaluate, publish, batch, serve, ask
# make test     linters, types, boundaries, tests
# make serve    leave the demo's server running          make stop    end it
# make proof    what takes hours: published protocols and benchmarks; resumable; writes tests/benchmarks/results/
# make quick    tests without the slow ones              make clean   remove the environment and what the demo wrote
# make gpu      on a machine with an NVIDIA GPU: the CUDA packages, the tests that need it, a short training in bf16
#
# LOCK=cpu|cuda chooses the pinned set of packages; a machine where nvidia-smi lists a GPU takes cuda.
# HOME_DIR=var is where everything that Playbill writes goes.

SHELL := /bin/bash
PYTHON ?= python3.11
LOCK ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
HOME_DIR ?= var
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(LOCK)

.PHONY: install demo serve stop test quick lint proof gpu clean lock

install: $(STAMP)

# The plain torch wheel of the package index is the CUDA build, which a CPU machine cannot import: so torch comes first,
# as a CPU wheel from wherever pip is configured to look, else from PyTorch's own index.
$(STAMP): docker/lock-$(LOCK).txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed and '$(PYTHON)' is not there; set PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(LOCK),cpu)
	@$(BIN)/python -c "import torch" 2>/dev/null || { echo "installing torch (CPU wheel) ..."; \
	  $(BIN)/pip install -q --disable-pip-version-check --no-deps "$$(grep ^torch== $<)+cpu" 2>/dev/null || \
	  $(BIN)/pip install --disable-pip-version-check --no-deps --index-url https://download.pytorch.org/whl/cpu "$$(grep ^torch== $<)+cpu"; }
endif
	@echo "installing $$(grep -c == $<) pinned packages from $< ..."
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps -r $< 2>&1 | { grep -v "is ignored: it is neither" || true; }; exit $${PIPESTATUS[0]}
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . 2>&1 | { grep -v "is ignored: it is neither" || true; }; exit $${PIPESTATUS[0]}
	$(BIN)/playbill doctor
	@rm -f $(VENV)/.installed-* && touch $@

demo: install
	$(BIN)/playbill demo home=$(HOME_DIR)

serve: install
	$(BIN)/playbill demo home=$(HOME_DIR) leave_serving=true

stop:
	$(BIN)/playbill serve home=$(HOME_DIR) stop=true

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell src training serving conf docker README.md CONTRIBUTING.md Makefile
	$(BIN)/lint-imports --config tests/boundaries/imports.toml
	$(BIN)/mypy -p playbill

# two at a time, a file whole in one of them: files share what takes seconds to make
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST)

quick: install
	$(PYTEST) -m "not slow"

proof: install
	$(BIN)/python tests/benchmarks/proof.py home=$(HOME_DIR) $(if $(PEERS),peers=$(PEERS))

# what no other target can check; never run yet where this was made, for there was no GPU
gpu:
	@nvidia-smi -L >/dev/null 2>&1 || { echo "no NVIDIA GPU here: nvidia-smi lists none. Nothing was installed and nothing was run."; exit 1; }
	$(MAKE) install LOCK=cuda
	@$(BIN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || { echo "nvidia-smi lists a GPU and torch sees none: look at the driver, and at playbill doctor above"; exit 1; }
	$(BIN)/python -m pytest -q -m gpu
	$(BIN)/playbill prepare source=ml-100k home=$(HOME_DIR)
	$(BIN)/playbill train model=two_tower model.tables=fused model.max_epochs=2 precision=bf16-mixed run=gpu-two_tower home=$(HOME_DIR)
	$(BIN)/playbill train model=ranker model.tables=fused model.max_epochs=2 precision=bf16-mixed run=gpu-ranker retrieval_run=gpu-two_tower home=$(HOME_DIR)

lock:
	docker/lock.sh

clean:
	rm -rf $(VENV) $(HOME_DIR) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
