# The README's two commands are `make demo` and `make test`.
PYTHON ?= python3
SEED ?= 0
BIN := .venv/bin
export PYTHONHASHSEED := 0
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-slow mutations bench bench-full interop interop-smoke gymnasium-versions docs lint install clean

# Every recipe installs into .venv first; the stamp is renewed when the requirements change.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "textenvs needs Python 3.11 or newer, got %d.%d; set PYTHON=" % sys.version_info[:2])'
	@echo 'installing into .venv (a few minutes)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

install: .venv/installed

demo: install
	$(BIN)/python -m agents.demo --run-dir runs/demo-$(SEED) --seed $(SEED)

# MkDocs, 120 MB, is wanted for the documentation alone.
.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# Builds site/, any warning an error; Material's own banner about MkDocs 2 is none of ours (mkdocs<2 is required).
docs: .venv/docs-installed
	$(BIN)/python docs/generate.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	$(BIN)/python docs/check_site.py site

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: install
	$(BIN)/python -m pytest -n 2 -m slow

# Plants one wrong line at a time and prints which test noticed.
mutations: install
	$(BIN)/python benchmarks/mutations.py --jobs 2

# The rows of benchmarks/README.md, in under 15 minutes on a quiet machine; bench-full runs those that take longer.
bench: install
	$(BIN)/python benchmarks/start_up.py
	$(BIN)/python benchmarks/env_step.py
	$(BIN)/python benchmarks/env_batch.py
	$(BIN)/python benchmarks/env_growth.py
	$(BIN)/python benchmarks/sampling.py --sizes 0.1M 1M
	$(BIN)/python benchmarks/update.py
	$(BIN)/python benchmarks/tiny.py
	$(BIN)/python benchmarks/table.py

bench-full: install
	$(BIN)/python benchmarks/sampling.py --sizes 135M
	$(BIN)/python benchmarks/update.py --rows update --sizes 11M
	$(BIN)/python benchmarks/grpo_trl.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/table.py

# Makes the venvs of the libraries that need one (gigabytes, once) and trains every plug-in example on one core.
interop: install
	$(BIN)/python benchmarks/interop.py
	$(BIN)/python benchmarks/fits.py

# Seconds of every plug-in example, in the same venvs: each library must see what the envs counted.
interop-smoke: install
	$(BIN)/python benchmarks/interop.py --smoke

# The tests of the envs on the oldest Gymnasium that we admit, RLlib's and the newest.
gymnasium-versions: install
	$(BIN)/python benchmarks/gymnasium_versions.py

clean:
	rm -rf .venv runs build site *.egg-info
