# make demo   a real-estate site, two workers on this machine and two Scrapyd nodes, one crawl spread over them, and a
#             report of what it found (make demo NODES=0: without any Scrapyd; LOCAL=0: without workers on this machine;
#             CARRIER=redis: LOCAL processes of scrapy worker that join a run in Redis)
# make test   the whole suite
# make unit   the part of it that starts no processes, in about a minute
# make oldest the whole suite with the oldest Scrapy that is tried (constraints-oldest.txt); make oldest
#             ONLY=--without-nodes: the part of it that starts no Scrapyd, in four minutes
# make chaos  workers, nodes, disks, FTP servers and the site fail at random: an hour; before it the
#             tests of make unit, with three times as many random examples
# make bench  this project and others crawl the same site, side by side, for two to three hours
#             (make bench SCENARIO=short ROUNDS=1: for a few minutes; python benchmarks/schedules.py:
#             how close crawls come to the best schedule, for one to two hours)
# make lint   style and types
# Each sets up .venv first (make oldest: .venv-oldest) if it is missing, or older than pyproject.toml or constraints.txt.

PYTHON ?= python3

PROPERTIES = 3000
CARRIER = scrapyd
LOCAL = 2
NODES = $(if $(filter redis,$(CARRIER)),0,2)
LATENCY = 0
BATCH = 250

# Tests at the same time: most of them wait for processes, more than there are cores.
AT_ONCE = 3
# What strikes by the clock: on a busy machine it would miss.
STORMS = 2

# Else pytest rewrites and compiles every test file anew in each of its processes, for 6 s.
unexport PYTHONDONTWRITEBYTECODE

SCENARIO = installed,best,cores,short,scaling,latency
ROUNDS = 3

VENV = .venv
READY = $(VENV)/ready
OLDEST = .venv-oldest
# Half a gigabyte, for one test; where there is no Java it is skipped.
SPARK = $(if $(shell command -v java),$(VENV)/spark)

.PHONY: demo test unit oldest chaos bench lint clean

demo: $(READY)
	@exec $(VENV)/bin/python example_project/demo/demo.py \
		--properties $(PROPERTIES) --carrier $(CARRIER) --local $(LOCAL) --nodes $(NODES) \
		--latency $(LATENCY) --batch $(BATCH)

test: $(READY) $(SPARK)
	@$(VENV)/bin/python -m pytest -n $(AT_ONCE)

unit: $(READY)
	@$(VENV)/bin/python -m pytest -n $(AT_ONCE) --without-processes

oldest: $(OLDEST)/oldest
	@$(OLDEST)/bin/python -m pytest -n $(AT_ONCE) $(ONLY)

chaos: $(READY)
	@$(VENV)/bin/python -m pytest -n $(AT_ONCE) --without-processes --hypothesis-profile=long
	@$(VENV)/bin/python -m pytest -n $(STORMS) tests/chaos -m ""

bench: $(READY)
	@exec $(VENV)/bin/python benchmarks/side_by_side.py --scenario $(SCENARIO) --rounds $(ROUNDS) --write

lint: $(READY)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info example_project/.demo benchmarks/.work

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "Python 3.10 or newer is needed, $(PYTHON) is not: try make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) (once, a minute or two)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { \
		echo "$(PYTHON) can't make a venv: on Debian and Ubuntu, install python3-venv" >&2; exit 1; }
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]' 2> $(VENV)/pip.log || { \
		cat $(VENV)/pip.log >&2; exit 1; }
	@touch $@

$(VENV)/spark: $(READY)
	@echo "Adding Spark to $(VENV) (once)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[spark]' 2> $(VENV)/pip.log || { \
		cat $(VENV)/pip.log >&2; exit 1; }
	@touch $@

$(OLDEST)/oldest: pyproject.toml constraints.txt constraints-oldest.txt
	@$(MAKE) --no-print-directory VENV=$(OLDEST) $(OLDEST)/ready
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement constraints-oldest.txt 2> $(OLDEST)/pip.log || { \
		cat $(OLDEST)/pip.log >&2; exit 1; }
	@touch $@
