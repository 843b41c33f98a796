# `make` runs what CI runs. Everything happens in .venv; nothing is installed elsewhere.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SEEDS ?= 1-2000
KILLS ?= 200
PAIRS ?= deviations
DEPTH ?= 1
INPUTS ?= 2000
# Many tests wait for banks of their own, so there are more of them at a time than cores.
WORKERS ?= 4

# Tests start many processes: each would compile everything anew where this is set.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: check test lint types demo demo-west-africa simulate exhaustive crash fuzz mutate bench bench-quick clean
.DEFAULT_GOAL := check

check: lint types test  ## what CI runs

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

test: $(STAMP)  ## every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

demo: $(STAMP)  ## pay examples/salaries-bf.csv through the embedded sandbox; needs no key, moves no money
	@rm -rf demo && mkdir -p demo && cp examples/salaries-bf.csv demo/
	@cd demo && ../$(BIN)/payout-engine run salaries-bf.csv --sandbox --yes; \
	code=$$?; echo "The results are in demo/salaries-bf.csv-results; give the commands above in the folder demo."; \
	test $$code -eq 0 -o $$code -eq 1 -o $$code -eq 3 -o $$code -eq 5

demo-west-africa: $(STAMP)  ## pay examples/west-africa.csv through four providers at once; needs no key, moves no money
	@rm -rf demo && mkdir -p demo && cp examples/west-africa.* demo/
	@cd demo && ../$(BIN)/payout-engine run west-africa.csv --config west-africa.toml --sandbox --yes; \
	code=$$?; echo "The results are in demo/west-africa.csv-results; give the commands above in the folder demo."; \
	test $$code -eq 0 -o $$code -eq 1 -o $$code -eq 3 -o $$code -eq 5

simulate: $(STAMP)  ## whole lives with crashes in simulated time; SEEDS=17 replays one, WITH=--callbacks lets banks call back
	PYTHONPATH=tests $(BIN)/python -m simulation.lives --seeds $(SEEDS) $(WITH)

exhaustive: $(STAMP)  ## a small run, cut off in every way; PAIRS=same for less, PAIRS=all or DEPTH=2 for hours
	PYTHONPATH=tests $(BIN)/python -m simulation.exhaustive --pairs $(PAIRS) --depth $(DEPTH) --workers $(WORKERS)

crash: $(STAMP)  ## real processes, killed KILLS times
	PAYOUT_ENGINE_KILLS=$(KILLS) $(BIN)/python -m pytest -q -n $(WORKERS) tests/test_crashes.py tests/test_crashes_everywhere.py --timeout 7200

fuzz: $(STAMP)  ## hostile files and answers, INPUTS for each property
	PAYOUT_ENGINE_INPUTS=$(INPUTS) $(BIN)/python -m pytest -q -n $(WORKERS) tests/test_hostile.py tests/test_hostile_answers.py --timeout 7200

mutate: $(STAMP)  ## faults planted in the code that decides about money; MODULES="journal/rules.py" tries some
	$(BIN)/python -m pip install --quiet --group mutate
	nice $(BIN)/python tests/mutate.py $(MODULES)

bench: $(STAMP)  ## every figure of the README; several minutes
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks

bench-quick: $(STAMP)
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks --quick

clean:
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
