# The two commands a newcomer needs: `make quickstart` and `make test`. Each sets itself up.
.PHONY: env quickstart smollm2 test test-fast test-exhaustive check format docs bench experiment lock clean
.DEFAULT_GOAL := help

PY := .venv/bin/python
SOURCES ?= ../shared/data
SHELL_SCRIPTS = $(shell find scripts -name '*.sh' -o -name '*.sbatch') .ci/run
# What the site is made of. A link from one of these to anything else breaks `make docs`.
PAGES := README.md CONTRIBUTING.md CHANGELOG.md docs recipes studies

help:
	@echo "make quickstart   train with AIR on this machine, no GPU needed, and see the table (about 8 minutes)"
	@echo "make smollm2      the same on a real chat model and published data: SOURCES=FOLDER (docs/cpu.md)"
	@echo "make test         all tests, with real verl runs on the CPU"
	@echo "make test-fast    the tests that take seconds"
	@echo "make check        format, lint, types, shell scripts"
	@echo "make docs         these pages as a site, in build/docs/site; a broken link is an error"
	@echo "make bench        ratios of time and memory, compared with the committed ones"
	@echo "make experiment   methods compared over seeds, by a plan: PLAN=FILE (studies/experiment)"
	@echo "make env          the virtual environment in .venv (done by the others too)"

env:
	@scripts/make_env.sh

quickstart: env
	@$(PY) -m verl_air.playground.quickstart

smollm2: env
	@$(PY) -m verl_air.playground.smollm2 --sources $(SOURCES)

test: env
	$(PY) -m pytest -n 2 -m "not exhaustive"

test-fast: env
	$(PY) -m pytest -n 2 -m "not slow and not verl_run and not exhaustive"

test-exhaustive: env
	$(PY) -m pytest -m exhaustive

check: env
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/shellcheck -x $(SHELL_SCRIPTS)

format: env
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: env
	rm -rf build/docs
	mkdir -p build/docs/source
	ln -s $(addprefix ../../../,$(PAGES)) build/docs/source/
	$(PY) -m properdocs build --strict --quiet --config-file mkdocs.yml
	@echo "build/docs/site/index.html"

bench: env
	$(PY) -m benchmarks.gate

experiment: env
	@$(PY) -m studies.experiment $(PLAN)

lock: env
	scripts/lock.sh

clean:
	rm -rf build dist runs .pytest_cache .mypy_cache .ruff_cache
