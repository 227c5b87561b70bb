# SPDX-License-Identifier: GPL-2.0-or-later
# Every command installs what it needs into .venv, and nothing anywhere else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check golden docs bench lab clean

help:
	@echo 'make demo     decode and summarise a recorded migration'
	@echo 'make test     run the whole test suite, with coverage of the core'
	@echo 'make check    ruff, mypy --strict, import contracts, manifest of captures'
	@echo 'make golden   write the golden transcripts anew, for review as a diff'
	@echo 'make docs     write the generated parts of docs/ anew'
	@echo 'make bench    measure against tcpdump, tshark, dpkt and scapy'
	@echo 'make clean    remove what these commands made'

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV) ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable ".[dev]"
	@$(BIN)/python -m compileall -q mfdtool dissectors
	@touch $@

demo: $(STAMP)
	@cd captures && for command in \
		'mfdtool info mtty-4ch-clean.pcap.gz' \
		'mfdtool decode --device 00:05.0 mtty-4ch-clean.pcap.gz' \
		'mfdtool check mtty-4ch-clean.pcap.gz' \
		'mfdtool stats mtty-4ch-clean.pcap.gz'; \
	do echo "\$$ $$command"; ../$(BIN)/$$command; echo; done

test: $(STAMP)
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=95

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_manifest.py

golden: $(STAMP)
	$(BIN)/python -m pytest -q tests/golden --update-golden

docs: $(STAMP)
	$(BIN)/python -m tools.docs

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check dpkt
	$(BIN)/python tools/bench.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage
