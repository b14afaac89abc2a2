# `make run` and `make test` are all that a bare machine needs (Python 3.11 or newer, make, gcc).
#
#   make run                        build the quickstart assistant, and open the course and its chat page on 127.0.0.1:8000
#   make run SIZE=tiny SERVE=0      a smaller one, without serving
#   make run TEXT=~/notes           from your own documents
#   make run THREADS=2              with so many CPU threads
#   make test                       the default test tier, on a finished installation
#
# TORCH_INDEX: package index to take torch from. Where the plain package brings CUDA libraries that you
# do not want, name the CPU index that pytorch.org lists for your system.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
SIZE ?= small
TEXT ?= python
PORT ?= 8000
SERVE ?= 1
THREADS ?=
WORKSPACE ?= workspace
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
RECIPE := $(WORKSPACE)/quickstart
# Spaces in a folder's name, for the shell; not quotes, which would keep it from reading ~.
space := $(subst ,, )
escaped = $(subst $(space),\ ,$(1))
threads = $(if $(THREADS),--threads $(THREADS))
BUILD = $(BIN)/bottega run quickstart --size $(SIZE) --text $(call escaped,$(TEXT)) --workspace $(call escaped,$(WORKSPACE)) $(threads)
# A port in use is better said before the build than after it.
check_port := import sys; from bottega.serve.listen import port_check; port = sys.argv[1]; \
  port.isdigit() and int(port) < 65536 or sys.exit(f"error: PORT={port} is no port"); \
  check = port_check("127.0.0.1", int(port)); \
  sys.exit(None if check.passed else "error: " + check.detail.replace("--port ", "make run PORT="))

.PHONY: run build test slow lint clean
.DEFAULT_GOAL := run

run: $(VENV)/.installed
ifneq ($(SERVE),0)
	@$(BIN)/python -c '$(check_port)' $(PORT)
endif
	$(BUILD)
ifneq ($(SERVE),0)
	$(BIN)/bottega learn $(call escaped,$(RECIPE)/model) --port $(PORT) --report $(call escaped,$(RECIPE)/report.html) --workspace $(call escaped,$(WORKSPACE)) $(threads)
endif

build: $(VENV)/.installed
	$(BUILD)

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --timeout 1800

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

$(VENV)/.installed: pyproject.toml constraints.txt src/bottega/model/kernels/kernels.c
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bottega needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) --constraint constraints.txt --editable '.[course]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache
