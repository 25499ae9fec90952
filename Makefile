# Every target sets up its own environment: .venv is made when it is missing or setup.cfg is newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# spinning OpenMP threads that share a core stall each other: see swin_dense/__init__.py
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 10000

.PHONY: demo test test-all bench bench-all zoo check format matrix clean

demo: $(READY)
	$(BIN)/python tools/demo.py

# two processes of one thread each; a file's tests share what they set up
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: check
	$(PYTEST) -m 'not slow'

# one after the other: some measure what the machine can do
test-all: check
	$(BIN)/python -m pytest

# alone on the machine: both refuse to start beside anything else
bench: $(READY)
	$(BIN)/python benchmarks/run.py

bench-all: $(READY)
	$(BIN)/python benchmarks/run.py --suite full

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# all configs of mmdet and mmseg, on tiny inputs; hours, and it goes on where it was stopped
zoo: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[lite,test,zoo]'
	$(BIN)/python -m benchmarks.zoo

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The fast tests on every supported Python that pyenv has.
matrix:
	@for version in 3.10 3.11 3.12 3.13; do \
		python=$$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python | tail -1) || exit 1; \
		echo "== $$python"; \
		$(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON=$$python || exit 1; \
	done

$(READY): setup.cfg pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and 'Python 3.10 to 3.13 is needed, this is %d.%d: make PYTHON=python3.11' % sys.version_info[:2])"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[lite,test]'
	touch $@

clean:
	rm -rf .venv .venv-3.* work_dirs
