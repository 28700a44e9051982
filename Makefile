# `make demo` runs forecast cycles and verifies them, `make test` the tests; both set everything up first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The oldest Triton that is supported, beside the newest one of the environment: kernels compile with both.
OLDEST_TRITON := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	--target $(VENV)/triton-3.6 triton==3.6.0

.PHONY: demo test test-slow test-gpu check format benchmarks lock clean help

help:
	@echo "make demo        forecasts of a simulated atmosphere, published and verified"
	@echo "make test        the fast tests"
	@echo "make test-slow   the slow tests"
	@echo "make test-gpu    what needs a GPU"
	@echo "make check       formatting, lint, types, import contracts"
	@echo "make benchmarks  measure again what benchmarks/results holds"

$(VENV)/.runtime: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once; a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.13.0
	@$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@$(PIP) -e '.[dev]'
	@[ "$$(uname -sm)" != "Linux x86_64" ] || $(OLDEST_TRITON)
	@touch $@

demo: $(VENV)/.runtime
	@$(BIN)/mosaic demo

test: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile

test-gpu: $(VENV)/.dev
	@TRITON_INTERPRET=0 $(BIN)/python -m pytest -m gpu

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks: $(VENV)/.dev
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.regrid
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.point
	$(BIN)/python -m benchmarks.products
	$(BIN)/python -m benchmarks.verification
	$(BIN)/python -m benchmarks.rounding
	$(BIN)/python -m benchmarks.kernel_builds
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scaling
	$(BIN)/python -m benchmarks.scaling_figure
	$(BIN)/python -m benchmarks.step

lock: $(VENV)/.dev
	$(BIN)/python -m pip freeze --exclude-editable | $(BIN)/python infra/lock.py > constraints.txt

clean:
	rm -rf $(VENV) mosaic-data
