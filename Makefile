# For developers and CI: `make` lists the targets. Each target alone works in a fresh clone with Python 3.11 or newer.

PORT ?= 8000
CHECK ?=
PROFILE ?= demo
ARGS ?=
JOBS ?= 5
FAST_JOBS ?= 4
TARGET ?= cpu
export PYTHONDONTWRITEBYTECODE := # what one process compiled, the next one reads, as do the workers of a test run
VENV ?= .venv
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

ROOMS = entrypoint healthcheck patcher demo
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check install --no-deps --no-compile
COMPILE = $(VENV)/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock' --quiet --upgrade

# A folder that is not empty is cleared or removed only if `make` left this file in it, or, as older versions did, `pinned`
# in a virtual environment.
MADE = $(VENV)/made-by-make
REFUSE_FOREIGN = if [ -n "$$(ls -A "$(VENV)" 2>/dev/null)" ] && [ ! -e "$(MADE)" ] && \
	! { [ -e "$(VENV)/pinned" ] && [ -e "$(VENV)/pyvenv.cfg" ]; }; then \
	echo >&2 "error: $(VENV) is not empty and was not made by make, so it was not changed; name another folder: make VENV=DIR $(MAKECMDGOALS)"; exit 1; fi
ifneq ($(words $(VENV)),1)
$(error VENV=$(VENV) must name one folder, without spaces)
endif
ifneq ($(strip $(foreach mark,~ * ? [,$(findstring $(mark),$(VENV)))),)
$(error VENV=$(VENV) must not contain ~, *, ? or [, which a shell would expand; write the path in full)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-deep tools-deep faults mutants lint format docs bench image lock venv clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "make %-10s %s\n", $$1, $$2}'

demo: $(VENV)/installed ## serve a tiny model on this CPU and ask it a question; CHECK=1 stops after the answer, PROFILE=demo-v4 shows DeepSeek-V4
	@$(VENV)/bin/python -m dsv4_serve.demo --profile $(PROFILE) --port $(PORT) $(if $(CHECK),--check)

test: $(VENV)/installed ## run every test, five at once (JOBS=5); ARGS='tests/patcher -x' runs some (tests/README.md)
	$(VENV)/bin/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(ARGS) || { [ $$? -eq 1 ] && \
		echo "make test: what failed among other tests is tried again, alone" && \
		$(VENV)/bin/python -m pytest --last-failed --last-failed-no-failures none --exitfirst -rA --no-header $(ARGS); }

test-fast: $(VENV)/installed ## run the tests that need neither vLLM nor an image and are not slow
	$(VENV)/bin/python -m pytest -n $(FAST_JOBS) --dist loadgroup --hypothesis-profile quick -m "(unit or process) and not slow" $(ARGS)

test-deep: $(VENV)/installed ## run what `make test` leaves out because a shorter test shows the same (tests/README.md)
	TEST_DEEP=1 $(VENV)/bin/python -m pytest -n 2 --dist loadgroup -m deep $(ARGS)

tools-deep: $(VENV)/installed ## try tool calls with 1,000 turns for each property, where `make test` takes 25
	TOOL_CALL_EXAMPLES=1000 $(VENV)/bin/python -m pytest tests/patches/test_tool_call_properties.py $(ARGS)

faults: $(VENV)/installed ## inject every fault into real vLLM (10 minutes) and update the table in docs/results/faults.md
	rm -f build/faults.jsonl && mkdir -p build
	RECORD_FAULTS=$(CURDIR)/build/faults.jsonl $(VENV)/bin/python -m pytest tests/faults
	$(VENV)/bin/python -m tools.faults cpu build/faults.jsonl "$(shell nproc) CPU cores" $(shell date -u +%F) > qualification/results/faults/cpu.json
	$(VENV)/bin/python -m tools.faults page

mutants: $(VENV)/installed $(VENV)/mutants ## score modules by how many small changes their unit tests notice; ARGS='window gate' scores some
	nice -n 5 $(VENV)/bin/python -m tools.mutants --jobs $(JOBS) $(ARGS)

lint: $(VENV)/installed ## check style, format and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy $(addprefix -p dsv4_serve.,$(ROOMS)) & mypy=$$!; failed=; \
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python || failed=yes; wait $$mypy && [ -z "$$failed" ]

format: $(VENV)/installed ## fix style and format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/installed ## build docs/ as a site in build/site, which needs no network
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict --config-file tools/site/mkdocs.yml
	@echo "build/site/index.html"

bench: $(VENV)/installed ## measure time and memory of our own code: explain, doctor, start, supervisor, health server, balancer
	$(VENV)/bin/python -m pytest tests/bench/bench_*.py $(ARGS)

image: ## build the demo image for CPUs with Docker or buildah; TARGET=gpu builds the GPU image
	tools/image/build.sh $(TARGET) $(ARGS)

lock: $(VENV)/installed ## pin the newest versions that resolve
	$(COMPILE) pyproject.toml -o requirements/dsv4.txt
	$(COMPILE) requirements/gpu.in requirements/cuda.in -c requirements/dsv4.txt -o requirements/gpu.txt
	$(COMPILE) requirements/cuda.in -c requirements/gpu.txt -o requirements/cuda.txt
	$(COMPILE) requirements/sbom.in -o requirements/sbom.txt
	$(COMPILE) requirements/eval.in -o requirements/eval.txt
	$(COMPILE) requirements/cpu.in -c requirements/dsv4.txt --excludes requirements/excluded.txt -o requirements/cpu.txt
	$(COMPILE) --no-deps requirements/mutants.in -c requirements/cpu.txt -o requirements/mutants.txt
	$(COMPILE) requirements/dev.in -c requirements/cpu.txt --excludes requirements/excluded.txt -o requirements/dev.txt

venv: $(VENV)/installed ## make .venv with vLLM for CPU, the command and the tools

clean: ## remove what the other targets made
	@$(REFUSE_FOREIGN)
	rm -rf "$(VENV)" build dist *.egg-info packaging/*/build packaging/*/*.egg-info

# Starts over when a lock changes, so that no old package remains. pip tries an index twice at most, so that a machine with
# its own wheels and no access to PyTorch's index continues.
$(VENV)/pinned: $(addprefix requirements/,cpu.txt dev.txt dsv4.txt torch.txt)
	@{ "$(PYTHON)" -c '$(NEW_ENOUGH)'; } 2>/dev/null || { \
		echo >&2 "error: Python 3.11 or newer is required, found $(or $(PYTHON),none among python3 and python3.11 to python3.14); name one: make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 1; }
	@$(REFUSE_FOREIGN)
	@echo "== 1 of 4: virtual environment $(VENV) with $$($(PYTHON) --version)"
	@mkdir -p "$(VENV)" && touch "$(MADE)" && find "$(VENV)/" -mindepth 1 ! -path "$(MADE)" -delete
	$(PYTHON) -m venv $(VENV)
	@echo "== 2 of 4: torch for CPU"
	@$(PIP) --only-binary :all: --retries 1 --timeout 20 --require-hashes --extra-index-url $(TORCH_CPU_INDEX) -r requirements/torch.txt || { \
		echo >&2 "error: torch 2.13.0+cpu was not found for $$($(PYTHON) --version) on $$(uname -sm); pip's output above shows where it searched. Name another index: make TORCH_CPU_INDEX=URL"; exit 1; }
	@echo "== 3 of 4: vLLM for CPU, the command's dependencies and the tools"
	@awk '/^[a-z0-9]/ {other = !($$0 in seen); if (FILENAME !~ /dev/) seen[$$0]} FILENAME ~ /dev/ && other' \
		requirements/cpu.txt requirements/dsv4.txt requirements/dev.txt >$(VENV)/tools.txt # no package is in both halves
	@$(PIP) --only-binary :all: --require-hashes -r $(VENV)/tools.txt & tools=$$!; failed=; trap "kill $$tools; exit 1" INT TERM; \
	$(PIP) --only-binary :all: --require-hashes -r requirements/cpu.txt -r requirements/dsv4.txt || failed=yes; \
	{ wait $$tools && [ -z "$$failed" ]; } || { \
		echo >&2 "error: the pinned wheels could not be installed; pip's output above names the one that failed. Fix that and run make again."; exit 1; }
	@cd $(VENV)/lib/python*/site-packages && "$(abspath $(VENV))/bin/python" -m compileall -qq -j 0 torch vllm || true # copies of vLLM keep it; the rest is compiled where it is imported
	@touch $@

$(VENV)/mutants: requirements/mutants.txt | $(VENV)/pinned
	@$(PIP) --only-binary :all: --require-hashes -r requirements/mutants.txt
	@touch $@

# `names` shows mypy the packages under their installed names, as it does not read editable installs.
$(VENV)/installed: $(VENV)/pinned pyproject.toml packaging/vllm/pyproject.toml
	@echo "== 4 of 4: dsv4-serve"
	@$(PIP) --quiet --no-build-isolation --no-index ./packaging/vllm --editable .
	@rm -rf $(VENV)/names && mkdir -p $(VENV)/names && ln -sfn "$(CURDIR)" $(VENV)/names/dsv4_serve
	@$(VENV)/bin/python -m compileall -qq $(ROOMS) tests/support # for thousands of starts in tests, also where PYTHONDONTWRITEBYTECODE is set
	@touch $@
