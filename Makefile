# Two commands do all the set-up: `make run` and `make test`. Everything else is for whoever works on Cellule.
# Each target installs what it lacks (or prints the command when not root), says what it does, and may be repeated.

CARGO  ?= cargo
BINARY := target/release/cellule
# Sandboxes, images and the boot bundle of `make run`; the default is that of the command itself.
RUN_HOME ?=

.PHONY: help build run test check fmt docs soak bench clean

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 12

build: ## Build target/release/cellule
	@scripts/install-dependencies build
	@echo '==> building $(BINARY)'
	@$(CARGO) build --release --locked --package cellule-cli

run: build ## Run a command in a microVM, and show how long each step took
	@scripts/install-dependencies run
	@scripts/run-demo "$(BINARY)" "$(RUN_HOME)"

test: ## Run all checks and tests: format, lints, units, engine contract, end to end
	@scripts/install-dependencies build run test
	@scripts/test

check: ## Format and lints alone
	@scripts/install-dependencies build
	@scripts/check

fmt: ## Format the code
	@$(CARGO) fmt --all

docs: build ## Write the pages in docs/ that the program makes: all commands, the schema of inspect
	@$(BINARY) reference > docs/commands.md
	@$(BINARY) inspect --schema > docs/inspect.schema.json

soak: build ## Boot 200 cold guests, four at a time
	@scripts/install-dependencies run
	@$(CARGO) run --release --locked --package xtask -- soak --boots 200

bench: build ## Measure, each figure beside its floor
	@scripts/install-dependencies run
	@$(CARGO) run --release --locked --package xtask -- bench

clean: ## Remove what was built
	@$(CARGO) clean
