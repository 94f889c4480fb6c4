# Every target sets up what it needs: a virtual environment in $(VENV), the dependencies, the build.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
SOURCES := $(shell find csrc -type f \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \))
PYTEST_FLAGS ?=
MUTATE_FLAGS ?=
GPU_FLAGS ?=

.PHONY: demo test lint bench gpu abi neon wheel arches triton-arches sanitize fuzz mutate clean setup

# The main job: a fused ResNet trains on real scans of digits.
demo: setup
	$(BIN)/resnet-kernels train

test: setup
	OMP_NUM_THREADS=1 RNK_EMULATOR_OBJECTS=build/native/emulator \
		$(BIN)/python -m pytest -n 2 --check-ptx-coverage $(PYTEST_FLAGS)

lint: setup $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(SOURCES) $(wildcard tools/*.cpp python_tests/*/kernels/*.cu)
	$(BIN)/python tools/check_sources.py

# All this machine can measure: on a CPU about ten minutes, rows and a picture in runs/bench.
bench: setup
	$(BIN)/python -m benchmarks

# The acceptance run on a machine with a GPU: its interpreter, torch and nvcc; no network, no venv.
gpu:
	$(PYTHON) -m resnet_kernels.acceptance $(GPU_FLAGS)

# The one built binary on the oldest supported torch, on a CPU build and on the newest.
abi: setup
	$(BIN)/python tools/check_abi.py

# The CPU kernels' tests on AArch64 under qemu-user; tools/check_neon.py says what it needs.
neon: setup
	$(BIN)/python tools/check_neon.py

# A wheel, built from the source distribution and used with the sources hidden.
wheel: setup
	$(BIN)/python tools/check_wheel.py

# Every CUDA kernel for sm_80 to sm_120: no spills; what each takes, in docs/resources.md.
arches: setup
	$(BIN)/python tools/kernel_resources.py

# Every Triton kernel for sm_80 to sm_100 by two versions of Triton, in docs/resources_triton.md.
triton-arches: setup
	$(BIN)/python tools/triton_resources.py

# The emulator under AddressSanitizer and UndefinedBehaviorSanitizer, and its parser under libFuzzer.
sanitize: setup
	$(BIN)/python tools/sanitize_emulator.py

fuzz: setup
	$(BIN)/python tools/fuzz_emulator.py

# One-point breaks of the CUDA kernels: do the tests see them? Last line: killed/total.
mutate: setup
	$(BIN)/python tools/mutate_kernels.py $(MUTATE_FLAGS)

setup: $(VENV)/.built

# torch, ninja and setuptools first: the build below is not isolated, so that it uses this torch.
$(VENV)/.dependencies: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip "setuptools>=77" ninja pybind11
	$(BIN)/python -m pip install -q "torch>=2.10" torchvision
	nvcc="$$($(BIN)/python -m csrc.toolchain)" && { [ -z "$$nvcc" ] || $(BIN)/python -m pip install -q "$$nvcc"; }
	touch $@

$(VENV)/.built: $(VENV)/.dependencies setup.py csrc/toolchain.py $(SOURCES)
	$(BIN)/python -m pip install -q --no-build-isolation -e ".[test]"
	touch $@

$(VENV)/.lint: $(VENV)/.dependencies
	$(BIN)/python -m pip install -q clang-format mypy pre-commit ruff
	touch $@

clean:
	rm -rf build *.egg-info resnet_kernels/*.so resnet_kernels/_build.json $(VENV)/.built
