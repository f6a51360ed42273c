# `make train` and `make test` set themselves up: Python 3.11 or newer and make are all that they need.
# On a machine without a GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares the CUDA packages.

VENV ?= .venv
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3 python,$(shell $(p) -c 'import sys; \
	sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?=
MODEL ?=
# A test computes on one core; a file's tests stay together, since they share what is made once for the file.
PYTEST := $(BIN)/python -m pytest -q -n logical --maxprocesses 4 --dist loadfile
FUZZ_MINUTES ?= 10

.DEFAULT_GOAL := help
.PHONY: help install demo train test fuzz check lint format types docs bench bench-smollm2 bench-vsfc soak wheel clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## create the environment from the pinned constraints

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP) ## label three sentences with the bundled adapter; nothing is trained
	$(BIN)/loraft predict --run demo "thầy giảng bài rất dễ hiểu" "phòng học nóng , nên lắp thêm quạt" "bình thường"

train: $(STAMP) ## fine-tune the bundled backbone with QLoRA and print labels before and after
	$(BIN)/loraft train --quant nf4 --rank 16 --force

test: $(STAMP) ## run the tests
	$(PYTEST)

fuzz: $(STAMP) ## look for inputs that break a property of tests/test_properties.py: make fuzz FUZZ_MINUTES=10
	$(BIN)/python tools/fuzz.py $(FUZZ_MINUTES)

check: lint types $(STAMP) ## what CI runs: lint, types, all tests but the slow ones
	$(PYTEST) --integration

lint: $(STAMP) ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## put style and format right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## check types
	$(BIN)/mypy

docs: $(STAMP) ## build the documentation as pages to read, offline, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "docs: site/index.html"

bench: $(STAMP) ## measure loraft beside other tools and write docs/performance.md; DATA=<folder> for other rows
	$(BIN)/python benchmarks/speed.py $(if $(DATA),--data "$(DATA)")
	$(BIN)/python benchmarks/performance.py

bench-smollm2: $(STAMP) ## run the tutorial's programme on SmolLM2-135M (docs/smollm2.md): make bench-smollm2 MODEL=<GGUF file>
	@test -n "$(MODEL)" || { echo "make bench-smollm2: MODEL is not set; docs/smollm2.md says where the file comes from" >&2; exit 2; }
	$(BIN)/python benchmarks/tutorial.py --model "$(MODEL)" $(if $(DATA),--data "$(DATA)")

bench-vsfc: $(STAMP) ## measure LoRA, QLoRA, a head and full fine-tuning on UIT-VSFC: make bench-vsfc DATA=<folder of its jsonl files>
	@test -n "$(DATA)" || { echo "make bench-vsfc: DATA is not set; DATA=<folder with train, validation and test.jsonl>" >&2; exit 2; }
	$(BIN)/python benchmarks/vsfc.py "$(DATA)"

soak: $(STAMP) ## memory of a million rows and of 200 trials, an hour or more; writes benchmarks/results/soak.json
	$(BIN)/python benchmarks/soak.py

wheel: $(STAMP) ## build the package for pip install elsewhere: dist/loraft-VERSION-py3-none-any.whl
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--wheel-dir dist .

clean: ## remove environment and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
