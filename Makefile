# `make` or `make help` lists the targets; each installs first what it needs and the machine lacks.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup build lean demo test bench gpu-check lint clean distclean

# make demo RANKS=4: MPI ranks of the demo.
RANKS ?= 2
# make setup CUDA=1: the compiler of kernels for GPUs; TORCH_CUDA=1: libtorch with its CUDA libraries, 4.7 GB.
# Only the first time needs to say so.
CUDA ?=
TORCH_CUDA ?=

PYTHON_IN_VENV := .venv/bin/python
# The program without its torch engine, which needs no libtorch.
LEAN := --no-default-features --features mpi
NEURALRG := $(or $(CARGO_TARGET_DIR),target)/release/neuralrg
SETUP := scripts/setup $(if $(filter-out 0,$(CUDA)),--cuda) $(if $(filter-out 0,$(TORCH_CUDA)),--torch-cuda)
DEMO := runs/demo

# Open MPI: more ranks than cores may share them, and no rank is pinned, since two runs at once
# would be pinned to the same cores. As root (containers) it starts only when told that this is meant.
export OMPI_MCA_rmaps_base_oversubscribe := 1
export OMPI_MCA_hwloc_base_binding_policy := none
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: RANKS=4 (MPI ranks of the demo), CUDA=1 (compiler for GPUs, 90 MB), TORCH_CUDA=1 (libtorch for GPUs, 4.7 GB)"

setup: ## install what is missing: system packages (as root on Debian), .venv, libtorch
	@$(SETUP)

build: setup ## the program with torch too, target/release/neuralrg
	cargo build --release

lean: ## the program without libtorch, target/release/neuralrg: all there is to do on CPUs and GPUs
	@$(SETUP) --lean
	cargo build --release $(LEAN)

demo: $(if $(or $(filter-out 0,$(TORCH_CUDA)),$(wildcard .venv/libtorch)),build,lean) ## the small sweep of configs/demo.toml and its two pictures, some minutes
	mpirun -n $(RANKS) $(NEURALRG) run configs/demo.toml -o $(DEMO)
	$(NEURALRG) collect $(DEMO)
	$(PYTHON_IN_VENV) analysis/fig_s1.py $(DEMO)/sweep.h5 -o $(DEMO)/fig_s1
	$(PYTHON_IN_VENV) analysis/fig_s2.py $(DEMO)/sweep.h5 -o $(DEMO)/fig_s2
	@echo
	@echo "The demo is done:"
	@echo "  $(DEMO)/fig_s1.png  error of the free energy against temperature, one curve per depth; also as .pdf"
	@echo "  $(DEMO)/fig_s2.png  samples of the field; also as .pdf"
	@echo "  $(DEMO)/sweep.h5    all numbers; docs/tutorial.md shows how to read them"
	@echo
	@$(NEURALRG) status $(DEMO)
	@echo "Flows of so few levels and seconds of training do not know all of the target, above all at low temperature. The observables,"
	@echo "by chains that do not depend on the flow, are right all the same."

test: ## all tests: Rust with MPI, analysis, a sweep under a real Slurm
	@$(SETUP) --test
	@scripts/test

bench: ## times of both engines, of plain PyTorch and of teams of ranks in one run, some tens of minutes
	@$(SETUP) --torch-cuda # the torch package that Python can import
	cargo bench
	cargo build --release
	$(PYTHON_IN_VENV) benches/pytorch_reference.py > target/pytorch_reference.json
	$(PYTHON_IN_VENV) benches/ratios.py target/pytorch_reference.json
	$(PYTHON_IN_VENV) benches/teams.py --program $(NEURALRG)

gpu-check: ## checks and times of the engine for GPUs, where there is a GPU; packs target/gpu-check for machines that have one
	@$(SETUP) --lean $(if $(wildcard .venv/nvrtc),,--cuda)
	scripts/gpu-check

lint: setup ## formatting and lints of Rust and Python
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup component add rustfmt clippy
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings
	cargo clippy --release --all-targets --no-default-features -- -D warnings
	$(PYTHON_IN_VENV) -m ruff check
	$(PYTHON_IN_VENV) -m ruff format --check

clean: ## remove what was built; runs and .venv stay
	cargo clean
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -r {} +
	rm -rf .pytest_cache .ruff_cache

distclean: clean ## also remove .venv with libtorch
	rm -rf .venv
