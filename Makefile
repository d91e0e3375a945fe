# Every command that a person types. `make` alone lists them.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
FEATURE := pg15
SUDO := $(if $(filter-out 0,$(shell id -u)),--sudo)
export PG_CONFIG
# Servers and their clients show no backtraces.
unexport RUST_BACKTRACE

.PHONY: help setup install demo demo-stop lint test bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, cargo-pgrx, its configuration
	@scripts/setup

install: setup ## build the extension and install it into the server of PG_CONFIG
	cargo pgrx install $(SUDO) --release --no-default-features --features $(FEATURE) --pg-config $(PG_CONFIG)

demo: install ## a throwaway server with an outage: status, cleanup, ledger, job; everything from nothing
	@demo/start

demo-stop: ## remove the demo's server
	@demo/stop

lint: setup ## formatting, clippy and the install script; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	scripts/lint-sql

test: install ## run every test
	cargo test --release --workspace
	scripts/regress

bench: install ## the runs beside their peers, as ratios, into target/bench (CHAPTERS="runs quiet scale batches load")
	cargo bench --bench speed -- $(CHAPTERS)
