# SPDX-License-Identifier: GPL-2.0-or-later
# Every command installs what it needs into .venv, and nothing anywhere else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check golden docs bench lab lab-captures clean

help:
	@echo 'make demo     decode and summarise a recorded migration'
	@echo 'make test     run the whole test suite, with coverage of the core'
	@echo 'make check    ruff, mypy --strict, import contracts, manifest of captures'
	@echo 'make golden   write the golden files of tests/ anew, for review as a diff'
	@echo 'make docs     write the generated parts of docs/ and its transcripts anew'
	@echo 'make lab      install what live tests need: a kernel, QEMU and a device made of software'
	@echo 'make lab-captures   record the real captures of captures/ anew'
	@echo 'make bench    measure against tcpdump, tshark, dpkt, scapy and socat'
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
	$(BIN)/python -m pytest -q --update-golden -k 'golden or kept_list or test_recorded' \
		tests/golden tests/report/test_wireshark_tables.py \
		tests/differential/test_wireshark.py tests/differential/test_pci_lspci.py

docs: $(STAMP)
	$(BIN)/python -m tools.docs
	$(BIN)/python -m pytest -q --update-golden -k transcripts \
		tests/test_docs.py tests/differential/test_wireshark.py

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check dpkt
	$(BIN)/python tools/bench.py
	$(BIN)/python -m tools.bench_proxy
	$(BIN)/python -m tools.bench_explore
	$(BIN)/python -m tools.bench_bisect

lab: $(STAMP)
	tools/lab/install.sh

lab-captures: lab
	$(BIN)/python -m tools.lab_captures

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	rm -rf .import_linter_cache .hypothesis .coverage .coverage.*
	find mfdtool dissectors tests tools -name __pycache__ -exec rm -rf {} +
