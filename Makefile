# make demo: a fresh clone to a video.   make test: a fresh clone to the whole test suite.
PYTHON ?= python3
VENV ?= .venv
INSTALLED = $(VENV)/.installed
SCENES = ["a red circle moves right on a white background","the red circle moves up on a white background"]

.PHONY: venv demo test lint clean

venv: $(INSTALLED)

# torch first and by itself, so that no other package chooses its build.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $(INSTALLED)

demo: venv
	@$(VENV)/bin/vidgen method=talc prompt='$(SCENES)'

# A process for each core, and a core for each process; whole files, because their tests share models and folders.
test: venv
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
