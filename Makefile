# Two commands do everything: `make demo` and `make test`. Each sets up what it needs in .venv, from nothing but Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# File by file over two processes, so that what a file sets up is set up once; in order, since by number of tests the longest come last.
SPREAD ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test bench clean

demo: $(VENV)/installed
	$(BIN)/burstsim run configs/quickstart.yaml -o out/quickstart --force
	@echo "The report is at out/quickstart/report.html"

test: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(SPREAD)

bench: $(VENV)/tested
	$(BIN)/python -m tests.speed.bench --json

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "burstsim needs Python 3.11 or newer; give one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/tested: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
