# make demo   sets everything up and runs the main job on real or drawn slides (SLIDES=DIR to choose)
# make test   sets everything up and runs every test
# make check  lint, types, layers, protos and generated code
# make bench-index  the index beside its peers: one table, and benchmarks/out/index.json (LARGEST=1e6 for a short run)
# make wire   generates sish_cluster/wire/sish from protos/
# make clean  removes what the above made, the demo's state included

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LARGEST ?= 1e7
DEMO_FLAGS ?=
PYTEST_FLAGS ?=

.PHONY: demo test check setup wire bench-index clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (a few minutes the first time: torch, ray, openslide, numba ...)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sish-cluster needs Python 3.11 or newer; found " + sys.version)'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[encoder,evaluation,exchange,dev]'
	@touch $@

demo: $(READY)
	@scripts/on-loopback $(BIN)/python examples/demo.py --out demo $(if $(SLIDES),--slides "$(SLIDES)") $(DEMO_FLAGS)

test: $(READY)
	@scripts/on-loopback $(BIN)/python -m pytest $(PYTEST_FLAGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd protos && $(abspath $(BIN))/buf lint && $(abspath $(BIN))/buf format --diff --exit-code
	WIRE_VENV=$(VENV)-wire PYTHON=$(PYTHON) scripts/generate-wire --check

wire:
	WIRE_VENV=$(VENV)-wire PYTHON=$(PYTHON) scripts/generate-wire

bench-index: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks.bench_index --largest $(LARGEST) --out benchmarks/out/index.json

clean:
	rm -rf $(VENV) $(VENV)-wire demo build benchmarks/out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
