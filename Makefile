# Learning without Labels. `make` alone lists what can be made.
#   PYTHON=python3.11   the interpreter the environment is made from (3.11 to 3.13)
#   VENV=.venv          where the environment lives
#   PY=/path/to/python  use this interpreter as it is and make no environment

PYTHON ?= python3
VENV   ?= .venv
BOOK   := _build/html/index.html
SHELL  := /bin/bash
export PYTHONUTF8 = 1

ifdef PY
  READY :=
else
  PY    := $(VENV)/bin/python
  READY := $(VENV)/.ready
endif

.DEFAULT_GOAL := help
.PHONY: help env book test lint chapter find notebooks assignments serve lab repository colab-test full long broken bench pdf picture clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | \
	  awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) --version >/dev/null 2>&1 || { echo "No $(PYTHON) here. Name one: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) book/preflight.py "$(VENV)"
	@echo "Making the environment in $(VENV) (once; two to ten minutes, 6 GB) ..."
	@$(PYTHON) -m venv "$(VENV)" || { echo "Cannot make $(VENV): on Debian and Ubuntu, install python3-venv."; exit 1; }
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt \
	  || { echo "pip could not install requirements.txt: its own reason stands above. Without network nothing can be"; \
	       echo "fetched; behind a proxy set HTTPS_PROXY; then run the same make again, it goes on where it stopped."; exit 1; }
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e . \
	  || { echo "pip could not install the course's own package: see above."; exit 1; }
	@touch $@

env: $(READY)  ## make the environment in .venv (every target does it when needed)

book: $(READY)  ## build the book and print its address
	@$(dir $(PY))jupyter-book build -W -n --keep-going . \
	  || { echo "The book has warnings or errors: they stand above, and none is allowed."; exit 1; }
	@echo; echo "The book: file://$(CURDIR)/$(BOOK)"

lint: $(READY)  ## check the code's style
	@$(PY) -m ruff check .

test: $(READY)  ## lint, every notebook executed again and compared, all tests (ONLY=self_supervision/redundancy)
	@$(PY) tests/run_all.py $(ONLY)

chapter: $(READY)  ## write the skeleton of a chapter of the plan (NAME=clustering/deep_clustering)
	@$(PY) book/new_chapter.py $(NAME)

find: $(READY)  ## where a paper's page, code, tests and results are (PAPER=odc, or words of its title)
	@$(PY) -m labcode.course.find "$(PAPER)"

notebooks: $(READY)  ## execute changed chapters in place, five seeds, and write their results (ALL=1: every chapter)
	@$(PY) book/make_notebooks.py $(if $(ALL),--all) $(ONLY)

assignments: $(READY)  ## nbgrader assignments from the chapters' graded tasks (ONLY=contrastive PRIVATE=folder)
	@$(PY) book/assignments.py $(if $(PRIVATE),--private "$(PRIVATE)") $(ONLY)

serve: book  ## build the book and serve it on http://localhost:8000
	@cd _build/html && "$(abspath $(PY))" -m http.server 8000 --bind 127.0.0.1

lab: $(READY)  ## open the notebooks in JupyterLab
	@$(PY) -m jupyterlab --notebook-dir=notebooks

repository: $(READY)  ## set the project's address, for Colab and Binder (URL=https://github.com/OWNER/NAME; URL= unsets)
	@$(PY) book/repository.py $(if $(findstring command,$(origin URL)),"$$URL")

colab-test: $(READY)  ## try notebooks as Colab runs them, each alone in an empty folder (ONLY=redundancy STEPS=2)
	@$(PY) book/try_colab.py $(if $(STEPS),--steps $(STEPS)) $(ONLY)

full: $(READY)  ## run every chapter at full scale on this machine's GPU (BUDGET=25m)
	@$(PY) -m labcode.run --full-queue $(if $(BUDGET),--budget $(BUDGET))

long: $(READY)  ## run changed chapters four times as long, three seeds, on this CPU, two at once (ONLY=part/chapter)
	@OMP_NUM_THREADS=1 $(PY) -m labcode.run $(ONLY) --long-queue

broken: $(READY)  ## break a chapter's methods one line at a time and see which claims notice (ONLY=part/chapter)
	@$(PY) -m labcode.course.broken $(ONLY)

bench: $(READY)  ## speed of the methods beside peer libraries, where these are installed, for the book's page
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -q tests/benchmarks --bench-json book/results/bench.json

pdf: book  ## print a chapter (CHAPTER=self_supervision/redundancy; SOLUTIONS=0 leaves the solutions out)
	@$(PY) book/browser.py "$(or $(CHAPTER),self_supervision/contrastive)" $(if $(filter 0 no,$(SOLUTIONS)),--without-solutions)

picture: book  ## take README's picture of the book again (needs chromium)
	@chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=6000 --window-size=1280,1040 \
	  --screenshot=book/_static/book.png "file://$(CURDIR)/_build/html/book/parts/self_supervision.html" 2>/dev/null

clean:  ## remove what was built (not the environment, not the notebooks' outputs)
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
