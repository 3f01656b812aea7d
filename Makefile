PYTHON ?= python3
# The build of torch: auto looks at the machine; or cpu, cu130, ... as `uv pip install --torch-backend` takes them.
TORCH_BACKEND ?= auto
TORCH := torch==2.13.0
VENV := .venv
READY := $(VENV)/.ready
# Bytecode is made at the end, on all cores: without it every start takes 20 s instead of 8, for good where Python may
# not write it (PYTHONDONTWRITEBYTECODE).
PIP := $(VENV)/bin/python -m pip install --quiet --no-compile
# The launchers for clusters, in an environment that sees what .venv has: Ray's plugin wants other versions of two packages.
CLUSTERS := $(VENV)/clusters
PIP_AUDIT ?= $(VENV)/audit/bin/pip-audit
# A process per core, each with one thread: most tests are too small to fill two cores.
PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow check format docs lock audit clean

help:  ## show this list
	@awk -F ':.*##' '/^[a-z-]+:.*##/ {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with locked versions and fetch GPT-2's vocabulary

train: $(READY)  ## run the tutorial: ten pairs, GPT-2 small, one to two minutes
	$(VENV)/bin/python scripts/train.py

test: $(READY)  ## run the tests, in a few minutes
	$(PYTEST)

test-slow: $(READY) $(VENV)/.loggers $(CLUSTERS)/.ready  ## run the slow tests: the whole tutorial, seeds, kills, clusters, in half an hour
	HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -m slow

check: $(READY)  ## check format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: $(READY)  ## format the code and fix what lint can fix
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

docs: $(READY)  ## write docs/configuration.md from the schema of the settings
	$(VENV)/bin/python scripts/settings_page.py

lock: $(READY)  ## choose versions anew and write requirements.lock
	$(PIP) uv
	$(VENV)/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --no-annotate --no-header --no-emit-package torch --output-file requirements.lock --quiet

# pip-audit fails where it finds something, where it reaches no service and, by --strict, where a service does not know
# a package, as a mirror without advisories: only "Found" tells them apart. Hashes are left out, since torch has none.
audit: $(PIP_AUDIT)  ## look up the locked packages in advisory services; says so where none can be reached
	@for service in pypi osv; do \
		said=$$({ sed -n 's/ *\\$$//; /^[^ ]*==/p' requirements.lock; echo '$(TORCH)'; } | $(PIP_AUDIT) --strict \
			--requirement /dev/stdin --no-deps --disable-pip --progress-spinner off --timeout 15 -s $$service 2>&1); \
		failed=$$?; case "$$said" in *"Found "*) echo "$$said"; exit 1;; esac; \
		if [ $$failed = 0 ]; then echo "$$said"; exit; fi; \
	done; echo "audit: no advisory service can be reached from here, so nothing was checked"

$(VENV)/audit/bin/pip-audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit==2.10.1

clean:  ## remove .venv and caches; runs in outputs/ and multirun/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache qa_lm.egg-info

# A CPU build of torch that pip already knows of is taken as it is; else uv finds the build that fits the machine.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@if [ "$(TORCH_BACKEND)" = auto ] && ! command -v nvidia-smi >/dev/null \
		&& $(PIP) '$(TORCH)+cpu' 2>/dev/null; then :; else \
		$(PIP) uv && \
		$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --torch-backend=$(TORCH_BACKEND) $(TORCH); fi
	$(PIP) --no-deps --require-hashes --requirement requirements.lock
	$(PIP) --no-deps --editable .
	@$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true  # packages bring files for other Pythons
	$(VENV)/bin/python -c 'from qa_lm.data.gpt2_vocabulary import load_gpt2_tokenizer; load_gpt2_tokenizer()'
	@touch $(READY)

# loggers=wandb and loggers=mlflow; what is locked stays as it is.
$(VENV)/.loggers: $(READY)
	$(PIP) --editable '.[wandb,mlflow]'
	@touch $@

PACKAGES := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
$(CLUSTERS)/.ready: $(READY)
	$(PYTHON) -m venv $(CLUSTERS)
	echo "import site; site.addsitedir('$$($(VENV)/bin/python $(PACKAGES))')" > "$$($(CLUSTERS)/bin/python $(PACKAGES))/base.pth"
	$(CLUSTERS)/bin/python -m pip install --quiet 'setuptools>=77' 'joblib<1.6'
	$(CLUSTERS)/bin/python -m pip install --quiet --editable '.[submitit,ray]'
	@touch $@
