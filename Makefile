# Each target sets up .venv by itself, from pyproject.toml and constraints.txt, and again only when one of them changes.
#   make demo    run the main job into demo/
#   make test    the tests (PYTEST_ARGS="-k shard" chooses some)
#   make check   linter and type checker
#   make clean   remove .venv and whatever was built
# Needs Python 3.11 or newer and a package index; PYTHON=/path/to/python chooses one.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
PACKAGED := pyproject.toml constraints.txt
CORE := $(filter-out %/__pycache__,$(wildcard drnet/*))
TYPED := build/typed/drnet

IS_NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for name in python3.11 python3; do \
	if $$name $(IS_NEW_ENOUGH) 2>/dev/null; then echo $$name; break; fi; done)

.PHONY: demo test check clean

demo: $(VENV)/runtime.stamp
	$(PY) -m drnet demo --out demo

test: $(VENV)/dev.stamp
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	rm -rf $(TYPED)
	mkdir -p $(TYPED)
	for path in $(CORE) datasets pipelines cli; do ln -s "../../../$$path" $(TYPED)/; done
	$(PY) -m mypy

# The development set-up holds the runtime's: `make demo` after `make test` installs nothing.
$(VENV)/runtime.stamp: $(PACKAGED) | $(PY)
	@echo "installing drnet and what it needs into $(VENV) (a few minutes, once)"
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev.stamp: $(PACKAGED) | $(PY)
	@echo "installing drnet and its development tools into $(VENV) (a few minutes, once)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,meshes,dask,hub,s3,onnx]'
	@touch $(VENV)/runtime.stamp $@

$(PY):
	@$(or $(PYTHON),false) $(IS_NEW_ENOUGH) 2>/dev/null || \
		{ echo "drnet needs Python 3.11 or newer: found none as $(or $(PYTHON),python3.11 or python3); set PYTHON" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find drnet datasets pipelines cli tests -name __pycache__ -type d -prune -exec rm -rf {} +
