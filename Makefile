# The two commands of the README; everything happens inside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# With what the demonstration needs, and with everything.
READY := $(VENV)/ready
INSTALLED := $(VENV)/installed
# Exact versions: the locks have hashes, torch.txt the one library that is taken by version alone.
# torch comes second, so that what it needs is there already; a CUDA build adds its own libraries.
DEMO := requirements/demo.txt
LOCK := requirements/lock.txt
LOWEST := requirements/lowest.txt
TORCH := requirements/torch.txt
locked = -m pip install --quiet --no-deps --require-hashes --requirement

.PHONY: demo test tests test-latest test-lowest lint docs bench mutants sanitize lock wheel clean

# Prune SmolLM2-135M on Python's documentation as far as costs little, and show what it cost.
# On 16 windows: 64 take nearly four times as long, for a perplexity that is 1 to 2 % lower.
demo: $(READY)
	$(BIN)/python -m thresher.assets smollm2
	$(BIN)/thresher prune "$$($(BIN)/python -m thresher.assets smollm2)" --sparsity auto \
	  --windows 16 --dtype bfloat16 --out demo-out --overwrite

# A process of tests for every core; files keep together until one has nothing left.
PARALLEL := --numprocesses logical --dist worksteal

# The tests and the linters, with the versions of the lock, at the same time: each linter takes one
# core.
test: $(INSTALLED)
	$(MAKE) --jobs 2 lint tests

tests: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL)

# The main jobs on other versions than the lock's, in environments of their own, as a user has
# them: installed from a wheel. PYTHONSAFEPATH keeps the source tree from being imported instead.
WHEELS := build/wheels
JOBS := tests/architectures tests/prune tests/report tests/run/test_checkpoint*.py \
  tests/run/test_pack*.py
jobs = PYTHONSAFEPATH=1 $(1)/bin/python -m pytest -o pythonpath=tests -p no:cacheprovider \
  $(PARALLEL) $(JOBS)

# Today's versions.
test-latest: wheel
	$(PYTHON) -m venv .venv-latest
	.venv-latest/bin/python -m pip install --quiet --constraint $(TORCH) --upgrade \
	  --upgrade-strategy eager "$$(echo $(WHEELS)/thresher-*.whl)[all,test]"
	.venv-latest/bin/python -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	$(call jobs,.venv-latest)

# The lowest that pyproject.toml declares, but for torch; they are made for its lowest Python, 3.11.
test-lowest: wheel
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(locked) $(LOWEST)
	.venv-lowest/bin/python -m pip install --quiet --requirement $(TORCH)
	.venv-lowest/bin/python -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	$(call jobs,.venv-lowest)

wheel: $(INSTALLED)
	rm -rf $(WHEELS)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEELS) .

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $$(find cpp -name '*.[ch]pp')
	$(BIN)/mypy

# Time every packed layout beside its rivals; wants a quiet machine, and says when it is not.
bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet "pybind11[global]"  # headers that sparseprop builds with
	$(BIN)/python -m pip install --quiet --no-deps sparseprop
	$(BIN)/python -m benchmarks.kernels

# Break a line at a time and see whether the tests notice: a night, and whatever of it there is.
mutants: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --requirement benchmarks/mutants/requirements.txt
	$(BIN)/python -m benchmarks.mutants --named
	$(BIN)/python -m benchmarks.mutants

# The tests of compiled code with AddressSanitizer and UndefinedBehaviorSanitizer.
SANITIZED := build/sanitized
sanitize: $(INSTALLED)
	cmake -S . -B $(SANITIZED) -DTHRESHER_SANITIZE=ON \
	  -DPython_EXECUTABLE="$(abspath $(BIN)/python)" -DCMAKE_BUILD_TYPE=RelWithDebInfo
	cmake --build $(SANITIZED) --parallel 2 --target _run _solve
	$(BIN)/python tests/sanitized.py $(SANITIZED)

docs: $(INSTALLED)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html
	$(BIN)/python -m pytest -q tests/docs/site.py

# Renew every version in the lock, and the lowest ones after a change of pyproject.toml.
lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python requirements/renew.py

$(READY): pyproject.toml $(DEMO) $(TORCH) CMakeLists.txt $(shell find cpp -type f)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(locked) $(DEMO)
	$(BIN)/python -m pip install --quiet --constraint $(TORCH) torch
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(INSTALLED): $(READY) $(LOCK)
	$(BIN)/python $(locked) $(LOCK)
	$(BIN)/python -m pip install --quiet --requirement $(TORCH)
	touch $@

clean:
	rm -rf $(VENV) .venv-latest .venv-lowest build demo-out artifacts docs/_build
