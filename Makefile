# rubriscope: the only entry a person needs. `make help` lists it.
# Everything is made below .venv and build; each step leaves a stamp, so a second run does what changed.

TORCH ?= torch==2.13.0
JOBS ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
# cmake and ninja may live in the environment; a machine's own come first.
export PATH := $(PATH):$(CURDIR)/$(BIN)
NATIVE := CMakeLists.txt setup.py $(shell find cmake csrc)
CTEST := ctest --output-on-failure --parallel $(JOBS) --timeout 300
CMAKE = cmake $$(command -v ninja >/dev/null && echo -G Ninja)
CXX_FILES = $(shell git ls-files --cached --others --exclude-standard '*.h' '*.cpp' '*.cu')

# In CI a warning is an error, and so is a reference counted without the GIL.
CHECKS := $(if $(CI),ON,OFF)
export CMAKE_ARGS += -DRUBRISCOPE_WERROR=$(CHECKS) -DRUBRISCOPE_CHECK_GIL=$(CHECKS)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test test-release test-cpp test-crash test-asan test-tsan test-python bench lint dev stubs crash cuda-check clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# -- set-up -----------------------------------------------------------------------------------------------

$(VENV)/.torch: .ci/bootstrap
	python=$$(.ci/bootstrap run) && { [ -x $(BIN)/python ] || "$$python" -m venv $(VENV); }
	$(BIN)/pip install -q $(TORCH) 'pybind11>=3.1' 'setuptools>=77'
	command -v cmake >/dev/null || $(BIN)/pip install -q 'cmake>=3.22'
	command -v ninja >/dev/null || $(BIN)/pip install -q ninja
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -q --no-build-isolation -e '.[demo]'
	@touch $@ $(VENV)/.native

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	.ci/bootstrap test >/dev/null
	$(BIN)/pip install -q --no-build-isolation -e '.[dev]'
	@touch $@ $(VENV)/.demo $(VENV)/.native

# A change in the C++ side is an incremental CMake build, without pip.
$(VENV)/.native: $(NATIVE)
	$(BIN)/python setup.py -q build_ext --inplace
	@touch $@

setup: $(VENV)/.demo $(VENV)/.native  ## an environment in .venv that can run the demo

dev: $(VENV)/.dev $(VENV)/.native  ## an editable install with the developers' tools
	@echo "Ready: . $(BIN)/activate"

# -- use --------------------------------------------------------------------------------------------------

# The film and the picture are the demo's own, made anew each time; a run that missed its target is shown too.
demo: setup  ## train a policy on digits by its rubric, replay the run, draw its curves
	@rm -rf runs/demo.db runs/demo.db-* runs/demo.db.rubriscope runs/demo.png
	@status=0; \
	$(BIN)/python examples/grpo_digits.py --db runs/demo.db --plot runs/demo.png || status=$$?; \
	$(BIN)/rubriscope show runs/demo.db && \
	echo "Curves: runs/demo.png" && \
	echo "Replay: $(BIN)/rubriscope replay runs/demo.db --speed 2" && exit $$status

# OpenEnv without its dependencies: the benchmarks load its two files of rubrics alone.
$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install -q --no-build-isolation -e '.[bench]'
	$(BIN)/pip install -q --no-deps openenv-core==0.3.0
	@touch $@

bench: dev $(VENV)/.bench  ## speed against peers, in the same run
	$(CMAKE) -S . -B build/bench -DRUBRISCOPE_BUILD_TESTS=OFF -DRUBRISCOPE_BUILD_BENCH=ON >build/bench.log \
		|| { cat build/bench.log; exit 1; }
	cmake --build build/bench --parallel $(JOBS)
	$(BIN)/python bench/run_all.py --native build/bench/bin

# -- tests ------------------------------------------------------------------------------------------------

# The runners' own summaries come last.
test: dev  ## everything: lint, C++ tests (also under sanitizers), short crash campaign, pytest
	$(MAKE) lint
	$(MAKE) test-asan
	$(MAKE) test-tsan
	$(MAKE) cuda-check
	$(MAKE) test-crash
	$(MAKE) test-cpp
	$(MAKE) test-python

# In the extension's build: what both need is compiled once.
test-release: dev
	cmake -S . -B build/cmake-dev -DRUBRISCOPE_BUILD_TESTS=ON >build/test-release.log \
		|| { cat build/test-release.log; exit 1; }
	cmake --build build/cmake-dev --parallel $(JOBS)

test-cpp: test-release  ## C++ tests, optimised, with fault points
	$(CTEST) --test-dir build/cmake-dev

# AddressSanitizer's allocator is not made safe for a fork while other threads allocate: the child can wait for
# its lock for ever. The one test that does that runs in the other build.
test-asan: dev  ## C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(CMAKE) -S . -B build/test-asan -DRUBRISCOPE_SANITIZE=address >build/test-asan.log \
		|| { cat build/test-asan.log; exit 1; }
	cmake --build build/test-asan --parallel $(JOBS)
	UBSAN_OPTIONS=print_stacktrace=1 $(CTEST) --test-dir build/test-asan --exclude-regex ForkingInTheMiddle

# ThreadSanitizer does not support threads in a forked child: those tests run in the other builds.
test-tsan: dev  ## C++ tests under ThreadSanitizer
	$(CMAKE) -S . -B build/test-tsan -DRUBRISCOPE_SANITIZE=thread >build/test-tsan.log \
		|| { cat build/test-tsan.log; exit 1; }
	cmake --build build/test-tsan --parallel $(JOBS)
	TSAN_OPTIONS=halt_on_error=1 $(CTEST) --test-dir build/test-tsan --exclude-regex 'recorder\.Fork'

test-crash: test-release  ## a short crash campaign: KILLS random kills (20)
	$(BIN)/python tests/crash/campaign.py --child build/cmake-dev/bin/crash_child_main --kills $(or $(KILLS),20)

crash:  ## the long crash campaigns: 500 random kills (KILLS), 20 stops of a server (RESTARTS), 40 ingesters, 100 encrypted writers (VAULT_KILLS)
	$(MAKE) test-crash KILLS=$(or $(KILLS),500)
	$(BIN)/python tests/crash/postgres_campaign.py --restarts $(or $(RESTARTS),20)
	$(BIN)/python tests/crash/ingest_campaign.py --kills 20 --snapshots 10000
	$(BIN)/python tests/crash/ingest_campaign.py --kills 20 --snapshots 10000 --postgres
	VAULT_KILLS=$(or $(VAULT_KILLS),100) $(BIN)/python -m pytest tests/python/test_vault.py -k nonce

test-python: dev  ## Python tests and examples
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist loadfile

cuda-check: dev  ## compile the CUDA operators for sm_80, sm_90 and PTX (nvcc, no GPU needed)
	@command -v nvcc >/dev/null || { echo "no nvcc on PATH: the CUDA operators cannot be compiled here"; exit 1; }
	RUBRISCOPE_CUDA=1 $(BIN)/python setup.py -q build_ext --inplace

lint: dev  ## ruff, clang-format, mypy, and whether the extension's stub is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo clang-format; $(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/mypy
	$(MAKE) --no-print-directory stubs CHECK=--check

stubs: dev  ## write python/rubriscope/_C.pyi from the extension
	$(BIN)/python .ci/stubs.py $(CHECK)

clean:  ## remove what was built, and the environment
	rm -rf build dist $(VENV) python/*.egg-info python/rubriscope/*.so
	rm -rf python/rubriscope/include python/rubriscope/lib python/rubriscope/share
