# Everything runs in .venv, made on first use: with uv where it is installed, else with pip.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SITE   := _build/html
PORT   ?= 8000

# One thread a process: outputs are the same bytes on every run, and parallel tests do not fight.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export TQDM_DISABLE    := 1

.DEFAULT_GOAL := help
.PHONY: help book serve lab test run export lint unit chapters site look clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"want Python 3.11 or newer, got {v[0]}.{v[1]}; say: make PYTHON=python3.12 ...")'
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && uv pip install --quiet --python $(BIN)/python -r requirements.txt; \
	else \
	  $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt; \
	fi
	@touch $@

book: $(READY)  ## build the site from the stored outputs and print its address
	@$(BIN)/python chapters/_tools/export.py --check
	@$(MAKE) --no-print-directory site
	@echo "The book: file://$(abspath $(SITE))/index.html"

site: $(READY)
	@$(BIN)/jupyter-book build -W --keep-going -q .

serve: book  ## serve the built site on localhost
	@echo "The book: http://127.0.0.1:$(PORT)/"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(SITE)

lab: $(READY)  ## open JupyterLab on the chapters
	@unset OMP_NUM_THREADS MKL_NUM_THREADS TQDM_DISABLE; $(BIN)/jupyter lab --notebook-dir=chapters

test: $(READY)  ## all checks: sync, lint, unit tests, chapters, site, browser
	@$(BIN)/python chapters/_tools/export.py --check
	@$(MAKE) --no-print-directory lint unit chapters site look

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

unit: $(READY)
	@$(BIN)/python -m pytest -q -n 2 tests

chapters: $(READY)
	@cd chapters && ../$(BIN)/python -m pytest -q -n 2 --dist=loadfile -c ../pyproject.toml \
	  --nbval --nbval-current-env --nbval-cell-timeout=600 *.ipynb

look: $(READY)
	@$(BIN)/python chapters/_tools/check_site.py $(SITE)

run: $(READY)  ## execute the chapters and store their outputs
	@$(BIN)/python chapters/_tools/run.py

export: $(READY)  ## write the package from the chapters
	@$(BIN)/python chapters/_tools/export.py

clean:  ## remove what was built (and .venv)
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache $(VENV)
	find . -name __pycache__ -prune -exec rm -rf {} +
