# Python 3.11 or newer.
PYTHON ?= python3

.PHONY: demo test test-ci test-all lint bench
demo: .venv/installed
	.venv/bin/python -m alexnet_tf.demo

test: .venv/test-installed
	.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile -m "not slow"

# All but what takes so long that continuous integration would not be done in 40 minutes.
test-ci: .venv/test-installed
	.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile -m "not long"

test-all: .venv/test-installed
	.venv/bin/python -m pytest --numprocesses=2 --dist=loadfile

lint: .venv/test-installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# Rewrites the tables of docs/performance.md. `make bench BENCH_FLAGS=--quick` only tries it out.
bench: .venv/bench-installed
	.venv/bin/python benchmarks/speed.py $(BENCH_FLAGS)

# The file says that the installation came to its end: one that broke off is begun anew.
.venv/installed: setup.py pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, e.g.: make PYTHON=python3.12 " + " ".join(sys.argv[1:]))' demo
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --editable .
	touch $@

.venv/test-installed: .venv/installed
	.venv/bin/python -m pip install --quiet --editable '.[test]'
	touch $@

.venv/bench-installed: .venv/installed
	.venv/bin/python -m pip install --quiet --editable '.[bench]'
	touch $@
