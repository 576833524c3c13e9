# Every target sets up what it needs; the second run finds it there and works offline.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# An environment with the runtime alone, where the tests prove that nothing else is needed.
LEAN := .venv-lean
LEAN_STAMP := $(LEAN)/.installed
# ONNX Runtime's WebGPU build is another package under the same name, so it has an environment of its own.
WEBGPU := .venv-webgpu
WEBGPU_STAMP := $(WEBGPU)/.installed
# Environments of their own: these pipelines need older releases than the exporter does.
PEERS := .venv-peers
PEER_STAMP := $(PEERS)/.installed
PEER_COMMON := 'torch==2.13.0' 'transformers==4.57.6' 'accelerate==1.15.0'
# What make bench measures; an SD15 and its bundles that are there already are not made again.
BENCH := out/bench
SD15 := out/sd15
SD15_BUNDLE := out/sd15-bundle
SD15_INT8 := out/sd15-int8
BENCH_STEPS := 3
BENCH_REPEATS := 5
CHECKPOINT := models/tinyworld
# Test processes; they share what they export.
JOBS ?= 2
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint wheel docs peers bench arm webgpu format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing sld-edge and its tools into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(LEAN_STAMP): pyproject.toml constraints.txt
	@test -x $(LEAN)/bin/python || $(PYTHON) -m venv $(LEAN)
	@echo "installing sld-edge without PyTorch into $(LEAN)"
	@$(LEAN)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . onnxruntime
	@touch $@

demo: $(STAMP) ## export a small checkpoint and picture the same seed without and with safety
	@$(BIN)/python -m sld_edge.bench.demo --out out/demo

test: $(STAMP) $(LEAN_STAMP) lint ## lint, types and every test
	SLD_LEAN_PYTHON=$(LEAN)/bin/python $(BIN)/python -m pytest -n $(JOBS) --dist loadscope --no-loadscope-reorder

test-fast: $(STAMP) ## the quick tests only
	$(BIN)/python -m pytest -m 'not slow' -n $(JOBS) --dist loadscope --no-loadscope-reorder

lint: $(STAMP) ## ruff and mypy, tests and training scripts too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

docs: $(STAMP) ## build the API reference from the docstrings into out/docs
	$(BIN)/python docs/reference.py out/docs

peers: $(PEER_STAMP) ## set up the pipelines that sld-bench compare measures against (a few GB)

# Torchvision goes again: it is only there because optimum-intel lists it, and fails to import beside torch's CPU build.
$(PEER_STAMP): Makefile $(STAMP)
	@test -x $(PEERS)/optimum/bin/python || $(PYTHON) -m venv $(PEERS)/optimum
	@test -x $(PEERS)/openvino/bin/python || $(PYTHON) -m venv $(PEERS)/openvino
	@echo "installing Optimum for ONNX Runtime and for OpenVINO into $(PEERS)"
	@$(PEERS)/optimum/bin/python -m pip install --quiet --disable-pip-version-check $(PEER_COMMON) \
		'optimum==2.1.0' 'optimum-onnx[onnxruntime]==0.1.0' 'onnx==1.23.2' 'onnxruntime==1.32.0' 'diffusers==0.35.2'
	@$(PEERS)/openvino/bin/python -m pip install --quiet --disable-pip-version-check $(PEER_COMMON) \
		'optimum==2.3.0' 'optimum-intel[openvino]==2.2.0' 'openvino==2026.4.1' 'nncf==3.4.0' 'diffusers==0.38.0'
	@$(PEERS)/openvino/bin/python -m pip uninstall --quiet --yes torchvision
	@$(PEERS)/optimum/bin/python -c 'from optimum.onnxruntime import ORTStableDiffusionPipeline'
	@$(PEERS)/openvino/bin/python -c 'from optimum.intel import OVStableDiffusionPipeline'
	@touch $@

bench: $(PEER_STAMP) ## measure an SD 1.5-sized model beside its peers into out/bench; an hour or more, leave the machine idle
	@test -f $(SD15)/model_index.json || $(BIN)/sld-bench make-checkpoint --size sd15 $(SD15)
	@test -f $(SD15_BUNDLE)/manifest.json || $(BIN)/sld-export $(SD15) $(SD15_BUNDLE)
	@test -f $(SD15_INT8)/manifest.json || $(BIN)/sld-calibrate $(SD15_BUNDLE) $(SD15_INT8) \
		--pictures 1 --samples 1 --compared 1 --steps 3
	@mkdir -p $(BENCH)
	$(BIN)/sld-bench compare $(SD15) $(SD15_INT8) --precision int8 --steps $(BENCH_STEPS) --repeats $(BENCH_REPEATS) \
		--peers-folder $(PEERS) --json-file $(BENCH)/compare-int8.json --html $(BENCH)/compare-int8.html
	$(BIN)/sld-bench compare $(SD15) $(SD15_BUNDLE) --precision bf16 --steps $(BENCH_STEPS) --repeats $(BENCH_REPEATS) \
		--peers-folder $(PEERS) --json-file $(BENCH)/compare-bf16.json --html $(BENCH)/compare-bf16.html
	$(BIN)/sld-bench compare $(SD15) $(SD15_BUNDLE) --precision fp32 --steps $(BENCH_STEPS) --repeats $(BENCH_REPEATS) \
		--peers-folder $(PEERS) --json-file $(BENCH)/compare-fp32.json --html $(BENCH)/compare-fp32.html
	$(BIN)/sld-bench latency $(SD15_BUNDLE) --precision bf16 --precision fp32 --steps 20 --scheduler ddim \
		--fewest 3 --most 3 --seconds 3600 --json-file $(BENCH)/latency.json --csv $(BENCH)/latency.csv --html $(BENCH)/latency.html
	$(BIN)/sld-bench startup --json-file $(BENCH)/startup.json

arm: $(STAMP) ## run the base install as an emulated aarch64 and compare its picture; root, Debian and some minutes
	bash tests/arm/run.sh $(BIN)/python out/arm

webgpu: $(STAMP) $(WEBGPU_STAMP) ## make a picture on ONNX Runtime's WebGPU over a software Vulkan driver and compare it
	@test -f out/webgpu/tiny/model_index.json || $(BIN)/sld-bench make-checkpoint out/webgpu/tiny
	@test -f out/webgpu/bundle/manifest.json || $(BIN)/sld-export out/webgpu/tiny out/webgpu/bundle
	$(WEBGPU)/bin/python -m tests.webgpu.check out/webgpu/bundle

$(WEBGPU_STAMP): pyproject.toml constraints.txt
	@test -x $(WEBGPU)/bin/python || $(PYTHON) -m venv $(WEBGPU)
	@echo "installing sld-edge and ONNX Runtime's WebGPU build into $(WEBGPU)"
	@$(WEBGPU)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . 'onnxruntime-webgpu==1.27.0'
	@touch $@

format: $(STAMP) ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove everything that the targets made
	rm -rf $(VENV) $(LEAN) $(WEBGPU) $(PEERS) out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
