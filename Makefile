# Every command that a person types. `make` alone lists them.
PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
MAJORS ?= 15 16 17 18
RELEASES ?= bookworm trixie
# Expanded late: `make needs` may install that server.
FEATURES = --no-default-features --features pg$(shell $(PG_CONFIG) --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
SUDO := $(if $(filter-out 0,$(shell id -u)),--sudo)
export PG_CONFIG
# Servers and their clients show no backtraces, and clients connect to whom they are told.
unexport RUST_BACKTRACE PGHOST PGPORT PGUSER PGDATABASE

.PHONY: help setup needs install package demo demo-stop lint docs release test test-chaos test-soak test-hostile test-citus test-package test-install test-matrix test-assert bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian packages, cargo-pgrx, its configuration, what tests need
	@scripts/setup-tests

needs: ## install what is missing to build and install
	@scripts/setup

install: needs ## build the extension and install it into the server of PG_CONFIG
	cargo pgrx install $(SUDO) --release $(FEATURES) --pg-config $(PG_CONFIG)
	@$(if $(SUDO),sudo PG_CONFIG=$(PG_CONFIG)) scripts/release install

package: ## build the Debian packages of the extension and of the binary into target/package
	@scripts/setup build-essential debhelper lintian
	scripts/package

demo: install ## a throwaway server with an outage: status, cleanup, ledger, job, dashboard; everything from nothing
	cargo build --release --package backlog-cleanup
	@demo/start

demo-stop: ## remove the demo's server
	@demo/stop

lint: setup ## formatting, clippy, storeys and the install script; warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings
	scripts/lint-modules
	scripts/lint-storeys src crates/backlog-cleanup/src
	scripts/lint-sql
	scripts/release check
	scripts/lint-docs

docs: install ## write what README and docs show anew, from throwaway servers; the pictures too
	cargo build --release -p backlog-cleanup
	REGENERATE=1 cargo test --release -p backlog_cleanup_tests -- readme::
	REGENERATE=1 cargo test --release -p backlog-cleanup --test docs
	scripts/pictures

release: setup ## freeze this version's install script in sql/released, to be committed and tagged v<version>
	scripts/release freeze

test: setup ## run every test, or those that a name finds (ONLY)
ifdef ONLY
	@scripts/test-only "$(ONLY)"
else
	scripts/pg-test
	@$(MAKE) --no-print-directory install
	cargo test --release --workspace --exclude backlog_cleanup --no-fail-fast
	scripts/regress
	scripts/schemathesis
endif

test-chaos: install ## kill processes at random moments of runs, 200 times (ROUNDS, SEED)
	ROUNDS=$(or $(ROUNDS),200) cargo test --release -p backlog_cleanup_tests -- chaos:: --nocapture

test-soak: install ## runs of all kinds beside a load for five minutes (SECONDS, SEED), and a replay of its history
	SECONDS=$(or $(SECONDS),300) cargo test --release -p backlog_cleanup_tests -- soak:: --nocapture

test-hostile: install ## hostile roles around the runs of a superuser for ten minutes (SECONDS, SEED), by chance
	SECONDS=$(or $(SECONDS),600) cargo test --release -p backlog_cleanup_tests -- hostile:: --nocapture

test-citus: install ## runs on a Citus of a coordinator and two workers, where the server of PG_CONFIG has Citus
	cargo test --release -p backlog_cleanup_tests -- citus:: --nocapture --test-threads 1

test-package: package ## install the packages in a clean Debian, use them and remove them; needs root
	scripts/package-test

test-install: ## type the README's installation in a fresh Debian (RELEASES="bookworm trixie"); needs root
	scripts/install-test $(RELEASES)

test-matrix: ## run every test on every supported PostgreSQL (MAJORS); see CONTRIBUTING.md
	scripts/matrix/run $(MAJORS)

test-assert: ## run every test on a PostgreSQL with assertions; see CONTRIBUTING.md
	scripts/matrix/assert

bench: install ## the runs beside their peers, as ratios, into target/bench (CHAPTERS="runs quiet scale batches workers load serve tick visibility shapes peers citus")
	cargo build --release -p backlog-cleanup
	cargo bench $(FEATURES) --bench speed -- $(CHAPTERS)
