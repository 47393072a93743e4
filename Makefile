# demo and test set everything up themselves: python3 >= 3.11 with pip, and make, are enough.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
MINUTES ?= 60

.PHONY: demo test bench train lint clean

demo: $(READY) ; $(VENV)/bin/python scripts/demo.py

test: $(READY) ; $(VENV)/bin/python -m pytest

bench: $(READY) ; $(VENV)/bin/foveal bench "$(DATA)" --rivals jpeg,webp,avif,jxl -o bench-out/results.jsonl --report bench-out

train: $(READY) ; $(VENV)/bin/foveal train image --data "$(DATA)" --minutes $(MINUTES) -o runs/image-s.safetensors

lint: $(READY) ; $(VENV)/bin/ruff check . && $(VENV)/bin/mypy

clean: ; rm -rf $(VENV) demo/out bench-out build dist

$(READY): pyproject.toml constraints.txt scripts/setup.sh ; sh scripts/setup.sh "$(PYTHON)" "$(VENV)" && touch $@
