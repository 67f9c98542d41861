# Two commands are all a newcomer needs, as root on Debian: `make demo` and `make test`.
# Each installs what is missing first.
.PHONY: setup demo test bench unit facts facts-all lab-tests lint format proto clean

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

setup:
	@tools/setup

demo: setup
	@$(PYTHON) tools/demo.py

test: setup lint
	@$(PYTEST) $(PYTEST_OPTIONS) tests

bench:
	@tools/setup bench
	@$(PYTHON) benchmarks/run.py
	@$(PYTHON) benchmarks/readme.py

unit facts: setup
	@$(PYTEST) $(PYTEST_OPTIONS) tests/$@

# With ten times as many rounds where threads, children and killed programs pass connections at random.
facts-all: setup
	@TCPCP_STRESS=10 $(PYTEST) $(PYTEST_OPTIONS) tests/facts

lab-tests: setup
	@$(PYTEST) $(PYTEST_OPTIONS) tests/lab

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/mypy examples/*.py
	@.venv/bin/mypy benchmarks/*.py

format: setup
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

proto: setup
	@tools/proto

clean:
	rm -rf .venv build plugin/build *.egg-info plugin/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
