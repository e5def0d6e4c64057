# Everything happens in .venv; only Python (3.11 or newer) and make are needed beforehand.
# make PYTHON=/path/to/python3.12 ... chooses another interpreter, make quickstart RUN=runs/mine another run folder.

BIN := .venv/bin
RUN ?= runs/quickstart
CONFIG ?= configs/mt_diffusion/digits.yaml
PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help quickstart install test lint bench

help:
	@echo 'make quickstart   install, train on digits, evaluate and sample: minutes on two cores, no GPU'
	@echo 'make install      create .venv and install mmdiffusion into it'
	@echo 'make test         install the developer tools, lint, type check, run the tests'
	@echo 'make lint         formatting, lint and type check only'
	@echo 'make bench        install the peers, compare speed and memory with theirs: 10 minutes on two cores'

quickstart: install
	@test ! -e '$(RUN)' || { echo '$(RUN) exists and is kept. Start another: make quickstart RUN=runs/another' >&2; exit 1; }
	$(BIN)/mmdiffusion fit -c $(CONFIG) --run '$(RUN)'
	$(BIN)/mmdiffusion test --run '$(RUN)'
	$(BIN)/mmdiffusion predict --run '$(RUN)'
	$(BIN)/mmdiffusion report --run '$(RUN)'
	@echo 'Page: $(RUN)/report.html    Pictures: $(RUN)/samples/    Metrics: $(RUN)/metrics.json    Settings: $(RUN)/config.yaml'

install: .venv/installed

# Two processes of one thread each: PyTorch's own threads spin against each other on a small machine.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --nbmake tests notebooks

lint: export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
lint: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: .venv/installed-bench
	$(BIN)/python -m benchmarks.peers

# The stamps are renewed when pyproject.toml changes. The developer install contains the plain one.
.venv/installed: pyproject.toml
	$(call install,.)

.venv/installed-dev: pyproject.toml
	$(call install,.[dev])
	@touch .venv/installed

.venv/installed-bench: pyproject.toml
	$(call install,.[bench])
	@touch .venv/installed

define install
@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	test -n '$(PYTHON)' || { echo 'No Python 3.11 or newer found: install it, or make PYTHON=/path/to/python ...' >&2; exit 1; }; \
	'$(PYTHON)' -m venv .venv; }
@echo 'Installing $(1) into .venv (PyTorch is several GB; the first time takes minutes)'
@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(1)'
@touch $@
endef
