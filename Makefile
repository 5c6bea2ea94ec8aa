# make demo: sets everything up and shows the detector on a street, with and without context.
# make test: sets everything up, checks style and types, and runs the tests.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
STREET := $(VENV)/.street

.PHONY: demo test setup lint clean

demo: $(STAMP) $(STREET)
	$(VENV)/bin/rnndet demo

# three workers, also on two cores: many tests wait for a process; compiled modules are kept even
# where PYTHONDONTWRITEBYTECODE is set, as every worker and process would compile them again
test: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -n 3 --dist worksteal

setup: $(STAMP)

$(STAMP): pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rnndet needs Python 3.11 or newer; name one: make PYTHON=python3.12 " or 0)'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[video,eval,plot,onnx,openvino,dev]'
	@touch $@

$(STREET): $(STAMP) # without it the demo runs on a rendered clip
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[demo]' \
	&& touch $@ || echo "the extra demo was not installed; the next make demo tries again"

lint: $(STAMP)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:
	rm -rf $(VENV) build dist out .mypy_cache .pytest_cache .ruff_cache *.egg-info
