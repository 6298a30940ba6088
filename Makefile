# The two commands of the README; everything happens inside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test lint docs bench sanitize clean

# Prune SmolLM2-135M to 50 % on Python's documentation, and show what it cost.
demo: $(INSTALLED)
	$(BIN)/python -m thresher.assets smollm2
	$(BIN)/thresher prune "$$($(BIN)/python -m thresher.assets smollm2)" --density 0.5 \
	  --dtype bfloat16 --out demo-out --overwrite --curve

# Everything that CI runs.
test: $(INSTALLED) lint
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Time every packed layout beside its rivals; wants a quiet machine, and says when it is not.
bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet "pybind11[global]"  # headers that sparseprop builds with
	$(BIN)/python -m pip install --quiet --no-deps sparseprop
	$(BIN)/python -m benchmarks.kernels

# The tests of compiled code with AddressSanitizer and UndefinedBehaviorSanitizer.
SANITIZED := build/sanitized
sanitize: $(INSTALLED)
	cmake -S . -B $(SANITIZED) -DTHRESHER_SANITIZE=ON \
	  -DPython_EXECUTABLE="$(abspath $(BIN)/python)" -DCMAKE_BUILD_TYPE=RelWithDebInfo
	cmake --build $(SANITIZED) --target _run _linear
	$(BIN)/python tests/sanitized.py $(SANITIZED)

docs: $(INSTALLED)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

$(INSTALLED): pyproject.toml constraints.txt CMakeLists.txt $(shell find cpp -type f)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
	  "scikit-build-core>=0.10" "nanobind>=2.4"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
	  --editable ".[assets,docs,test]"
	touch $@

clean:
	rm -rf $(VENV) build demo-out artifacts docs/_build
