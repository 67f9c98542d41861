# Two commands are all a newcomer needs, as root on Debian: `make demo` and `make test`.
# Each installs what is missing first.
.PHONY: setup setup-containers demo test test-containers test-vm test-vm-all vagrant-box vagrant-test bench fuzz unit facts facts-all lab-tests lint format proto manual clean chaos chaos-moves

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
# Files that take long come first, see tests/longest_first.py.
FILES := --dist loadfile --no-loadscope-reorder
# A test in the lab waits for most of its time: four labs at once. Those of one file share one.
LABS := -n 4 $(FILES)
# What the kernel does has namespaces of its own in each test, and waits for half of its time.
FACTS := -n 3 $(FILES)
# REPORTS, a directory, gets what was run and skipped, as XML.
report = $(if $(REPORTS),--junitxml=$(REPORTS)/$(1).xml)

setup:
	@tools/setup

# Podman, runc and crun, for the tests with containers.
setup-containers:
	@tools/setup containers

demo: setup
	@$(PYTHON) tools/demo.py

test: setup lint
	@status=0; \
	$(PYTEST) -n 2 $(PYTEST_OPTIONS) $(call report,unit) tests/unit || status=1; \
	$(PYTEST) $(FACTS) -m "not alone" $(PYTEST_OPTIONS) $(call report,facts) tests/facts tests/fuzz || status=1; \
	$(PYTEST) -m alone $(PYTEST_OPTIONS) $(call report,alone) tests/facts tests/fuzz || status=1; \
	$(PYTEST) $(LABS) -m "not long and not containers" $(PYTEST_OPTIONS) $(call report,lab) tests/lab || status=1; \
	$(PYTHON) tests/chaos/run.py --minutes 1 || status=1; \
	exit $$status

bench:
	@tools/setup bench
	@$(PYTHON) benchmarks/run.py
	@$(PYTHON) benchmarks/readme.py

# Every decoder of bytes from outside, for SECONDS or COUNT executions in all; TARGETS, SEED: see the program.
SECONDS := 60
fuzz: setup
	@$(PYTHON) tests/fuzz/fuzz.py $(TARGETS) $(if $(SEED),--seed $(SEED)) \
		$(if $(COUNT),--count $(COUNT),--seconds $(SECONDS))

# Random faults at random moments; see tests/chaos/README.md. RUNS=500 instead of MINUTES; SEED, JOBS, FINDINGS.
MINUTES := 10
chaos: setup
	@$(PYTHON) tests/chaos/run.py $(if $(RUNS),--runs $(RUNS),--minutes $(MINUTES)) \
		$(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(if $(FINDINGS),--findings $(FINDINGS))

# One server with 30 streams, back and forth: nothing grows.
MOVES := 300
chaos-moves: setup
	@$(PYTHON) tests/chaos/moves.py --moves $(MOVES)

unit facts: setup
	@$(PYTEST) $(PYTEST_OPTIONS) tests/$@

# Also each sort of endpoint with all that is agreed and all kinds of address, and ten times as many rounds where
# threads, children and killed programs pass connections at random: half an hour.
facts-all: setup
	@TCPCP_STRESS=10 SPACE_ALL=1 $(PYTEST) $(PYTEST_OPTIONS) tests/facts

# Also what `make test` leaves out: half of the combinations of who is killed, or cut off, and when; PostgreSQL.
lab-tests:
	@tools/setup long
	@$(PYTEST) $(LABS) -m "not containers" $(PYTEST_OPTIONS) tests/lab

# Containers by podman, runc and crun, and the plug-in for the CRIU that these run.
test-containers: setup-containers
	@$(PYTEST) -m containers $(PYTEST_OPTIONS) $(call report,containers) tests/lab

# Machines with kernels of their own. Where they cannot boot, all is skipped and the reason told. test-vm-all: also what
# says the same once more, a cut of the power in every state for one: half an hour more.
test-vm: CHOSEN := -m "not long"
test-vm test-vm-all:
	@tools/setup vm || echo "$@: goes on with what there is"
	@nice $(PYTEST) $(PYTEST_OPTIONS) --timeout 900 $(CHOSEN) $(call report,vm) tests/vm

# The lab with Vagrant, see vagrant/README.md. The box is made of Debian's packages alone.
vagrant-box:
	@tools/setup vm
	@nice $(PYTHON) -m migrate.lab.vm.box

vagrant-test:
	@tools/setup vagrant
	@nice $(PYTHON) vagrant/test.py

# Every shell script of the project.
SCRIPTS := .ci/run tools/setup tools/proto tools/validate-vagrant vagrant/provision.sh migrate/criu/criu-prefix \
	migrate/lab/migrate-lab migrate/lab/vm/root-hook migrate/lab/vm/foreign-root-hook

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/mypy tests/harness/*.py
	@.venv/bin/mypy examples/*.py
	@.venv/bin/mypy examples/switch_told/*.py
	@.venv/bin/mypy benchmarks/*.py
	@.venv/bin/mypy vagrant/*.py
	@.venv/bin/shellcheck -x -S warning $(SCRIPTS)
	@tools/validate-vagrant

format: setup
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

proto: setup
	@tools/proto

# Manual pages, and what shells complete.
manual: setup
	@$(PYTHON) tools/manual.py

clean:
	rm -rf .venv build plugin/build *.egg-info plugin/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
