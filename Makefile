# Two commands do all: `make demo` runs the main job, `make test` the tests. Both set themselves up in .venv.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do $$p -c 'import venv' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# On Linux x86-64 the plain version of torch may be a CUDA build of several gigabytes; the +cpu build never is.
ON_X86_LINUX := $(shell [ "$$(uname -sm)" = "Linux x86_64" ] && echo yes)
TORCH ?= torch==2.13.0$(if $(ON_X86_LINUX),+cpu)

.PHONY: help demo demo-real test test-slow test-integration test-gpu test-fetch test-kills test-outages gpu-all cubin pycuda lint format bench fuzz sbom audit pictures wheel clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 20

demo: $(VENV)/.demo  ## two gates under attack, one of them defended: needs no data, no camera and no torch
	$(BIN)/immunogate demo

demo-real: $(VENV)/.torch  ## the whole journey from checkpoints, on real faces and a real clip
	$(BIN)/immunogate demo --real

test: $(VENV)/.ready  ## the tests (under ten minutes)
	$(BIN)/python -m pytest -m "not slow and not integration and not gpu and not fetch"

test-slow: $(VENV)/.ready  ## the tests that take minutes
	$(BIN)/python -m pytest -m "slow"

test-integration: $(VENV)/.ready  ## the tests that start real servers; installs them where apt and root are there
	@dpkg -s gir1.2-gst-rtsp-server-1.0 >/dev/null 2>&1 || (apt-get update -q && apt-get install -qy python3-gi \
	  gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad)
	@command -v chromium-headless-shell chromium chromium-browser google-chrome >/dev/null || \
	  (apt-get update -q && apt-get install -qy chromium-headless-shell) || echo "no browser: its tests are skipped"
	$(BIN)/python -m pytest -m "integration"

test-outages: $(VENV)/.ready  ## cameras that go away 800 times, into benchmarks/results/bench_outages.json (minutes)
	$(BIN)/python benchmarks/bench_outages.py

test-gpu: $(VENV)/.ready  ## the tests that need an NVIDIA GPU; none of them may be skipped
	IMMUNOGATE_REQUIRE_GPU=1 $(BIN)/python -m pytest -m "gpu"

test-fetch: $(VENV)/.ready  ## the tests that download public wheels (TensorRT's bindings, TensorRT-RTX)
	$(BIN)/python -m pytest -m "fetch"

test-kills: $(VENV)/.ready  ## kill a writer of decisions 200 times; counts into benchmarks/results/audit_kills.json
	nice $(BIN)/python benchmarks/audit_kills.py

gpu-all:  ## on a machine with a GPU: tests, sanitizers, benchmarks, into out/gpu (docs/gpu_check.md); installs nothing
	PYTHON=$$([ -x $(BIN)/python ] && echo $(BIN)/python || echo python3) tools/gpu_check.sh

cubin: $(VENV)/.ready  ## compile the kernels for every architecture, for make wheel to carry (needs the CUDA toolkit)
	$(BIN)/python tools/make_cubins.py

pycuda: $(VENV)/.ready  ## build PyCUDA and install it, with or without a GPU here (needs the CUDA toolkit)
	$(BIN)/python tools/make_pycuda.py

lint: $(VENV)/.ready  ## formatting, style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -c 'import torch' 2>/dev/null && $(BIN)/mypy || echo "mypy not run: it needs torch"

format: $(VENV)/.ready  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.torch  ## the benchmarks, into benchmarks/results/
	$(BIN)/python benchmarks/run_all.py

fuzz: $(VENV)/.ready  ## feed every parser changed inputs for SECONDS (600), into benchmarks/results/
	$(BIN)/python benchmarks/fuzz_parsers.py --seconds $(or $(SECONDS),600) --seed $(or $(SEED),1)

sbom: $(VENV)/.ready  ## what is installed, as CycloneDX JSON, into out/sbom.json
	mkdir -p out
	$(BIN)/immunogate sbom --out out/sbom.json

audit: $(VENV)/.ready  ## ask the advisory database about what is installed (needs the network; installs pip-audit)
	$(PIP) install -q pip-audit
	$(BIN)/python -m pip_audit --skip-editable

pictures: $(VENV)/.torch  ## draw the picture of the README
	$(BIN)/python docs/pictures.py

wheel: $(VENV)/.ready  ## build sdist and wheel into dist/; the wheel carries the kernels of make cubin
	$(BIN)/python -m build --sdist
	$(BIN)/python -m build --wheel

clean:  ## remove the environment and everything that was made
	rm -rf $(VENV) out dist build kernels/cuda/cubin *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || (echo "no Python 3.10 to 3.12 with venv was found; set PYTHON=" && exit 2)
	$(PYTHON) -c 'import sys; assert (3, 10) <= sys.version_info[:2], "immunogate needs Python 3.10 or newer"'
	$(PYTHON) -m venv $(VENV)

# The package with two portraits and what draws them; a minute, and nothing of torch.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP) install -q -c constraints.txt -e '.[demo]'
	@touch $@

# The package with everything that tests need. Where torch has no CPU build for this Python, its tests are skipped.
$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	@if $(PIP) install -q -c constraints.txt "$(TORCH)"; then \
	  $(PIP) install -q -c constraints.txt -e '.[export,train,dev]'; \
	else \
	  echo "no CPU build of torch for this Python: tests that need torch are skipped"; \
	  $(PIP) install -q -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@

# What exports a bundle can not do without torch.
$(VENV)/.torch: $(VENV)/.ready
	@$(BIN)/python -c 'import torch' 2>/dev/null || \
	  (echo "installing the default build of torch, which can be several gigabytes" && \
	   $(PIP) install -q -c constraints.txt -e '.[export,train,dev]')
	@touch $@
