# make demo: install, then the whole pipeline on simulated patients. make test: install and run all tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: help install demo test lint docs clean

help:
	@echo "make demo   install, then the whole pipeline, ending with a report to open"
	@echo "make test   install, then all tests"
	@echo "make lint   install, then style and type checks"
	@echo "make docs   install, then the documentation as a site in build/site"
	@echo "make clean  remove the virtual environment and caches; data and models stay"

install: $(INSTALLED)

$(INSTALLED): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

# The whole pipeline on simulated patients: some minutes on a laptop. Made anew each time.
demo: install
	$(BIN)/python preprocess.py data=simulated preprocess.profile=clinical
	$(BIN)/python train.py data=simulated run_name=demo model=gpt_small overwrite=True \
	    hparams.n_ctx=512 hparams.mini_batch=32 hparams.n_accum=1 train.epochs=4
	$(BIN)/python generate.py model=demo n_samples=1400 overwrite=True
	$(BIN)/python preprocess.py data=simulated preprocess.profile=clinical data.simulation.seed=1 \
	    data.name=oracle data.raw_dir=data/raw/oracle data.path=data/processed/oracle
	$(BIN)/python evaluate.py model=demo preset=quick oracle=data/processed/oracle

test: install
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python docs/site/settings_page.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file docs/site/mkdocs.yml
	@echo "Site: build/site. Next: open build/site/index.html"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
