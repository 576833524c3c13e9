# Every target sets up what it needs; the second run finds it there and works offline.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# An environment with the runtime alone, where the tests prove that nothing else is needed.
LEAN := .venv-lean
LEAN_STAMP := $(LEAN)/.installed
# Environments of their own: these pipelines need older releases than the exporter does.
PEERS := .venv-peers
PEER_TORCH := torch==2.13.0
CHECKPOINT := models/tinyworld
# Test processes; each exports the small checkpoint for itself.
JOBS ?= 2
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint peers format clean

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
	SLD_LEAN_PYTHON=$(LEAN)/bin/python $(BIN)/python -m pytest -n $(JOBS) --dist loadscope

test-fast: $(STAMP) ## the quick tests only
	$(BIN)/python -m pytest -m 'not slow' -n $(JOBS) --dist loadscope

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

peers: $(STAMP) ## set up the pipelines that sld-bench compare measures against (a few GB)
	@test -x $(PEERS)/optimum/bin/python || $(PYTHON) -m venv $(PEERS)/optimum
	@test -x $(PEERS)/openvino/bin/python || $(PYTHON) -m venv $(PEERS)/openvino
	@echo "installing Optimum for ONNX Runtime and for OpenVINO into $(PEERS)"
	@$(PEERS)/optimum/bin/python -m pip install --quiet --disable-pip-version-check $(PEER_TORCH) \
		'optimum-onnx[onnxruntime]==0.1.0' 'diffusers==0.35.2' 'transformers==4.57.6' accelerate
	@$(PEERS)/openvino/bin/python -m pip install --quiet --disable-pip-version-check $(PEER_TORCH) \
		'optimum-intel[openvino]==2.2.0' 'diffusers==0.38.0' 'transformers==4.57.6' accelerate

format: $(STAMP) ## let ruff rewrite the files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove everything that the targets made
	rm -rf $(VENV) $(LEAN) $(PEERS) out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
