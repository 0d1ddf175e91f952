# Python 3.11 or newer.
PYTHON ?= python3
# The versions to install; in a new .venv, `make CONSTRAINTS= test` takes the newest.
CONSTRAINTS ?= constraints.txt

INSTALL = .venv/bin/python -m pip install --quiet $(addprefix --constraint=,$(CONSTRAINTS)) --editable
PYTEST = .venv/bin/python -m pytest --numprocesses=2 --dist=loadfile

.PHONY: demo demo-photos test test-ci test-all lint bench
demo: .venv/installed
	.venv/bin/python -m alexnet_tf.demo

# The same on 3,670 color photographs of flowers, which TensorFlow Datasets downloads (218 MB).
demo-photos: .venv/installed
	.venv/bin/python -m alexnet_tf.demo --source=tfds:tf_flowers

test: .venv/test-installed
	$(PYTEST) -m "not slow"

# All but what takes so long that continuous integration would take more than half an hour.
test-ci: .venv/test-installed
	$(PYTEST) -m "not long"

test-all: .venv/test-installed
	$(PYTEST)

lint: .venv/test-installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright --project pyproject.toml

# Rewrites the tables of docs/performance.md. `make bench BENCH_FLAGS=--quick` only tries it out.
bench: .venv/bench-installed
	.venv/bin/python benchmarks/speed.py $(BENCH_FLAGS)

# The empty files show that an installation was completed: one that was interrupted starts again.
.venv/installed: setup.py pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, e.g.: make PYTHON=python3.12 " + " ".join(sys.argv[1:]))' demo
	$(PYTHON) -m venv --clear .venv
	$(INSTALL) .
	touch $@

.venv/test-installed: .venv/installed
	$(INSTALL) '.[test]'
	touch $@

.venv/bench-installed: .venv/installed
	$(INSTALL) '.[bench]'
	touch $@
