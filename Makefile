# make demo    trains on the built-in photographs, evaluates on held-out ones, prints a table, writes panels, a report
# make test    runs the whole test suite
# make test-lowest   runs the quick tests with the lowest versions that pyproject.toml allows, in .venv-lowest
# make lint    checks style, types and the layers of the package
# make audit   looks the installed packages up in the databases of known vulnerabilities; needs the network
# make docs    builds the documentation site in build/docs; trains the demo first, if it has not been, for the notebooks
# make linkcheck   looks up the external links of the documentation; needs the network
# make bench   measures training, validation and inference against a plain loop (20 minutes; BENCH=--quick: 3), then
#              the overhead of the trainer, host time, start-up and PNG writers (10 minutes)
# make bench-gpu  checks and measures everything that needs a GPU, in less than nine minutes; BENCH=--help
# make bench-data   measures the training data, on a generated set of RealSR's size: 3 GB in BENCH_DATA=runs/bench-data
# make photographs   makes pairs from free photographs in three packages of Debian, in ./photographs; SCALE=4
# make bench-quality   measures the time to a quality, on pairs of benchmarks/photographs.py in BENCH_PHOTOGRAPHS=photographs
# make wheel   builds sdist and wheel
# make release builds both twice with the same bytes, checks them, and runs the demo from the wheel in a new environment
# Each makes .venv first, if it is not there. PYTHON=python3.12 chooses the interpreter, VENV=DIR the environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
SCALE ?= 4
BENCH_DATA ?= runs/bench-data
BENCH_PHOTOGRAPHS ?= photographs

.PHONY: demo docs linkcheck test test-lowest lint audit bench bench-gpu bench-data bench-quality photographs wheel release install clean

demo: $(VENV)/.installed
	$(BIN)/d2csr-train +experiment=demo hydra.run.dir=$(RUN) data.list_dir=$(RUN)/pairs
	$(BIN)/d2csr-eval ckpt=$(RUN) hydra.run.dir=$(RUN)/eval save=sr,panels report=true
	@echo "Panels: $(RUN)/eval/panels"

test: $(VENV)/.installed
	$(BIN)/python -m pytest -m "slow or not slow" --durations=20

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# --strict: a package that could not be looked up is a failure, and without the network none can be.
audit: $(VENV)/.installed
	$(BIN)/pip-audit --strict --skip-editable --progress-spinner off || \
	  { echo "make audit: vulnerabilities were found, or the databases could not be reached (offline): see above."; exit 1; }

test-lowest:
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) .ci/lowest_versions.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --disable-pip-version-check -e ".[dev]" -c .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pytest

docs: $(VENV)/.installed $(RUN)/checkpoints/best.ckpt
	D2CSR_CHECKPOINT=$(abspath $(RUN)) $(BIN)/sphinx-build -W --keep-going -n docs build/docs
	@echo "Open build/docs/index.html"

$(RUN)/checkpoints/best.ckpt: | $(VENV)/.installed
	$(BIN)/d2csr-train +experiment=demo hydra.run.dir=$(RUN) data.list_dir=$(RUN)/pairs

linkcheck: $(VENV)/.installed
	@$(BIN)/python -c "import urllib.request; urllib.request.urlopen('https://arxiv.org', timeout=20)" 2>/dev/null || \
	  { echo "make linkcheck: arxiv.org could not be reached (offline?): no external link was checked."; exit 1; }
	$(BIN)/sphinx-build -b linkcheck -D nb_execution_mode=off docs build/linkcheck

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/speed.py $(BENCH)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/host_time.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/png_writers.py

bench-gpu: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gpu $(BENCH)

wheel: $(VENV)/.installed
	$(BIN)/python -m build

release: $(VENV)/.installed
	.ci/release $(BIN)/python

bench-data: $(VENV)/.installed
	$(BIN)/python benchmarks/make_dataset.py $(BENCH_DATA)
	$(BIN)/python benchmarks/data.py $(BENCH_DATA) --json $(BENCH_DATA)/data.json

photographs: $(VENV)/.installed
	$(BIN)/python benchmarks/photographs.py photographs --scale $(SCALE)

bench-quality: $(VENV)/.installed
	$(BIN)/python benchmarks/time_to_quality.py $(BENCH) -- data.list_dir=$(BENCH_PHOTOGRAPHS)

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) -e ".[dev]"
	@touch $@

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
