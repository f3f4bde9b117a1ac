# One venv, pinned by constraints.txt. `make demo` and `make test` start from nothing.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export TOKENIZERS_PARALLELISM = false
# many small parallel regions cost more than they give on few, busy cores
export OMP_WAIT_POLICY = passive

.PHONY: demo test check faults bench docs test-lowest clean

$(VENV)/.%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$*]'
	touch $@

demo: $(VENV)/.demo
	$(BIN)/debias-ssae demo --out demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit -q -c pyproject.toml -r debias_ssae

# the long form of tests/faults: damaged files, killed processes, full disks; single tests may be run alone, and counts are kept
faults: $(VENV)/.test
	DEBIAS_SSAE_FAULTS=long $(BIN)/python -m pytest tests/faults

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# the lowest versions that pyproject.toml allows; they warn of what newer versions of other packages deprecate
test-lowest:
	test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct -e '.[test]'
	$(VENV)-lowest/bin/python -m pytest -W default -m "not slow and not browser and not interop"

bench: $(VENV)/.test
	$(BIN)/python benchmarks/sae_training.py --quick

clean:
	rm -rf $(VENV) $(VENV)-lowest demo results site
