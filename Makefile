# make setup   .venv from the lock file            make test   tests (no network, GPU or torch)
# make demo    convert and ask the bundled model   make lint   ruff
# make eval-demo   measure the bundled model on its own benchmark
# make bench   ratios measured in one run          make goldens UPSTREAM=clone   reference values, with torch
# make docs    the documentation -> build/site     make lock    renew requirements.lock
# make first-hour  README.md's commands on a clean clone, as a newcomer runs them

SHELL := /bin/bash
# The first Python of 3.10 to 3.12 that runs; `make PYTHON=... setup` takes another.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/ready
UV := $(BIN)/uv
# uv takes the lock file in seconds, pip in minutes; the index is pip's, so that a mirror serves both.
INDEX = $(or $(PIP_INDEX_URL),$(shell $(BIN)/pip config get global.index-url 2>/dev/null))
INSTALL = $(UV) pip install --system-certs $(if $(MAKE_TERMOUT),,--quiet) $(addprefix --default-index ,$(INDEX)) \
	--python $(BIN)/python

TINY := demo/checkpoints/internvl-tiny

.PHONY: setup demo eval-demo test first-hour test-clients lint bench docs goldens lock sanitize
setup: $(READY)

$(UV):
	@test -n "$(PYTHON)" || { echo "error: Python 3.10, 3.11 or 3.12 is needed; none was found"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# Unlike pip, uv compiles nothing: without the bytecode of these packages every process compiles for seconds.
COMPILED = paddle paddlenlp numpy scipy pandas sklearn datasets gradio openai hypothesis pydantic PIL matplotlib jieba \
	huggingface_hub ray/_private ray/data ray/serve ray/util

$(READY): requirements.lock setup.py | $(UV)
	@echo "installing everything of requirements.lock into .venv: 2.5 GB"
	$(INSTALL) --no-deps -r requirements.lock -e .
	-cd .venv/lib/python3.*/site-packages && ../../../bin/python -m compileall -q -j 0 -x '/(tests?|testing)/' $(COMPILED)
	@touch $@

# The tour needs Paddle for CPUs only; `make setup` adds the rest.
.venv/ready-cpu: requirements.lock setup.py | $(UV)
	@echo "installing paddle_internvl[cpu] into .venv: 1.7 GB; the first run then builds the CPU kernels, once"
	$(INSTALL) --constraint requirements.lock -e '.[cpu]'
	@touch $@

demo: .venv/ready-cpu
	$(BIN)/python -m demo.scripts.tour

eval-demo: .venv/ready-cpu
	$(BIN)/python -m demo.tiny.benchmark build/Tiny_DEV.tsv
	$(BIN)/paddle-internvl eval run $(TINY) --data Tiny_DEV=build/Tiny_DEV.tsv --work-dir build/outputs
	$(BIN)/paddle-internvl eval table build/outputs/internvl-tiny

# One worker more than cores: half of the time a test waits, for a process that it started, a server or a browser.
# The kernels are built before, by all cores, and not by one worker while the others wait. Asserts stay plain, because
# every worker would rewrite every file, ten seconds each; what failed is run once more, with the values of its asserts.
WORKERS = $(shell $(BIN)/python -c "import os; print(len(os.sched_getaffinity(0)) + 1)")
test: $(READY)
	-$(BIN)/paddle-internvl build-kernels --quiet
	export PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --assert=plain || \
		{ $(BIN)/python -m pytest --last-failed --last-failed-no-failures=none; exit 1; }

# Every command of README.md on a clean clone with empty caches; .venv/ready only for the walk's own imports.
first-hour: $(READY)
	$(BIN)/python -m tests.first_hour.walk

# Clients that are no part of the project's environment, in one of their own, against a server of this one.
CLIENTS = langchain-openai==1.7.4 litellm==1.110.2 instructor==1.17.0 openai==3.3.0 httpx pytest==9.2.0
test-clients: $(READY)
	test -d .venv-clients || python3 -m venv .venv-clients
	.venv-clients/bin/python -m pip install -q $(CLIENTS)
	PADDLE_INTERNVL_SERVE="$(abspath $(BIN))/paddle-internvl serve" .venv-clients/bin/python -m pytest -m clients \
		--confcutdir tests/clients tests/clients

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)
	$(BIN)/paddle-internvl bench model --json build/bench.json --plot build/bench

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

goldens: $(READY)
	@test -n "$(UPSTREAM)" || { echo "error: give UPSTREAM=<checkout of OpenGVLab/InternVL>"; exit 2; }
	$(PYTHON) -m venv .venv-reference
	.venv-reference/bin/pip install --quiet -r requirements.lock
	.venv-reference/bin/pip install --quiet torch==2.13.0 transformers==4.55.4 einops==0.8.1 accelerate==1.8.1
	.venv-reference/bin/python -m tests.goldens.make_goldens --upstream $(UPSTREAM)
	.venv-reference/bin/python -m tests.goldens.make_qwen3_training_goldens --upstream $(UPSTREAM)
	.venv-reference/bin/python -m tests.goldens.make_log_probs
	.venv-reference/bin/python -m tests.goldens.make_answer_goldens --upstream $(UPSTREAM)
	$(PYTHON) -m venv .venv-training-reference
	.venv-training-reference/bin/pip install --quiet torch==2.14.1 torchvision==0.29.1 transformers==4.37.2 peft==0.10.0 \
		accelerate==0.27.2 datasets==2.21.0 timm==0.9.12 einops==0.8.2 imageio==2.38.1 sentencepiece==0.2.3 \
		protobuf==7.36.2 numpy==2.4.6 pillow==12.3.0 rich==15.0.0
	.venv-training-reference/bin/pip install --quiet --no-deps trl==0.9.6 tyro==1.0.17 docstring-parser==0.18.0 shtab==1.13.0
	.venv-training-reference/bin/python -m tests.goldens.make_training_goldens --upstream $(UPSTREAM)
	.venv-training-reference/bin/python -m tests.goldens.make_mpo_goldens --upstream $(UPSTREAM)

# The C++ kernels on odd shapes under AddressSanitizer and UBSan, for every instruction set of this machine.
KERNELS := paddle_internvl/kernels/csrc
sanitize:
	mkdir -p build
	$(CXX) -std=gnu++17 -O1 -g -w -fopenmp -ffp-contract=fast -fno-omit-frame-pointer \
		-fsanitize=address,undefined -fno-sanitize-recover=all \
		$(KERNELS)/isa_*.cc $(KERNELS)/dispatch.cc $(KERNELS)/sanitize*.cc -o build/sanitize
	OMP_NUM_THREADS=2 build/sanitize

lock: $(READY)
	$(UV) pip compile --quiet --universal --python-version 3.10 setup.py \
		--extra cpu --extra chat --extra video --extra serve --extra scale --extra demo --extra notebooks --extra plots --extra docs \
		--extra curate --extra evaluation --extra structured --extra test --no-annotate --output-file requirements.lock
