# Everything a person does with this repo, by name. Each target installs what it needs, from nothing, when it may.
# The steps themselves are short scripts under scripts/.

PYTHON ?= python3.11
BIN := .venv/bin
# Where `make services` puts Garage, Gitea, crane, regctl and cosign; name another place to share it between clones.
export ALBATROS_SERVICES ?= $(CURDIR)/.services
# How many tests run at once, and more arguments for pytest: make test WORKERS=4 PYTEST="-k registry"
WORKERS ?= 2
PYTEST ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint services bench docs screenshots fmt lock clean

help: ## say what there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-12s %s\n", $$1, $$2 }'

setup: ## install the pinned dependencies into .venv (again only when they changed)
	@scripts/setup $(PYTHON)

demo: setup ## build the example repo on an embedded server and publish its image under ./albatros-demo
	@scripts/need-tools demo
	@$(BIN)/albatros demo

lint: setup ## check style, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: setup ## everything: style, types, import rules and all tests; ends with what was skipped and why
	@scripts/need-tools test
	@$(MAKE) --no-print-directory lint
	$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal --skips-to .cache/skips.json $(PYTEST)

services: ## build Garage, Gitea, crane, regctl and cosign from their package registries (takes long, niced)
	@scripts/services

bench: setup ## measure, and write the table and its JSON
	@scripts/need-tools demo
	@$(BIN)/python -m bench

docs: setup ## write docs/reference and the example config from the code
	@$(BIN)/python -m scripts.reference

screenshots: setup ## take the pictures of the dashboard that the documents show
	@scripts/need-tools test
	@$(BIN)/python scripts/screenshots.py

fmt: setup ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: setup ## choose the newest allowed versions again and write both lock files
	@scripts/lock

clean: ## remove what make made, except the built services
	rm -rf .venv .cache build dist albatros-demo
	find . -name __pycache__ -type d -not -path './.services/*' -prune -exec rm -rf {} +
