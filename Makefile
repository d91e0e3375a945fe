# Every command that a person types. `make` alone lists them.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
FEATURE := pg15
export PG_CONFIG
# Servers and their clients show no backtraces.
unexport RUST_BACKTRACE

.PHONY: help setup install lint test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, cargo-pgrx, its configuration
	@scripts/setup

install: setup ## build the extension and install it into the server of PG_CONFIG
	cargo pgrx install --release --no-default-features --features $(FEATURE) --pg-config $(PG_CONFIG)

lint: setup ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: install ## run every test
	cargo test --release --workspace
	scripts/regress
