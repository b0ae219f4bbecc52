# Everything is done through these targets; `make help` lists them. CI runs the same ones (.ci/run).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# RocksDB is built once, and the target directory lies outside the checkout: a second clone is warm.
# This only prints where; `make setup` does the work.
where := $(shell deploy/setup.sh --env)
ifneq ($(.SHELLSTATUS),0)
$(error nothing can be built, see above)
endif
$(foreach pair,$(where),$(eval export $(pair)))

# Optimised, with the assertions that guard state: what the cluster and the tests of clusters run.
PROFILE := test-release
export KVDB_BIN := $(CARGO_TARGET_DIR)/$(PROFILE)/kvdb
CLUSTER := deploy/cluster.sh

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS='|' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

.PHONY: setup
setup: ## Install what is missing and build RocksDB, once per machine (the others run it)
	@deploy/setup.sh

# --- Run it

.PHONY: cluster
cluster: build ## Three nodes on this machine, the examples uploaded and called; Ctrl-C stops them
	@$(CLUSTER) up

.PHONY: status
status: ## Show the three nodes: who leads, how far each is
	@$(CLUSTER) status

.PHONY: kill-leader
kill-leader: ## kill -9 of the leader; shows who leads next, then starts it again
	@$(CLUSTER) kill-leader

.PHONY: stop
stop: ## Stop a cluster that was left behind
	@$(CLUSTER) stop

.PHONY: run
run: build ## One node on 127.0.0.1:7400, data in .kvdb/single
	@$(KVDB_BIN) start --data .kvdb/single

# --- Build it

.PHONY: build
build: setup ## Build the binary that the cluster and the tests run
	@cargo build --locked --workspace --bins --profile $(PROFILE)

.PHONY: release
release: setup ## Build the binary to ship, and say where it is
	@cargo build --locked --workspace --bins --release
	@echo "$(CARGO_TARGET_DIR)/release/kvdb"

# --- Check it

.PHONY: check
check: fmt clippy docs deny tidy test ## All that CI checks; changes nothing

.PHONY: fmt
fmt: ## Is it formatted?
	@cargo fmt --all --check

.PHONY: clippy
clippy: setup ## Lints; a warning fails
	@cargo clippy --locked --workspace --all-targets -- -D warnings

.PHONY: docs
docs: setup ## Build the documentation; a warning fails
	@RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

.PHONY: deny
deny: ## Licences, banned crates and sources, by cargo-deny where it is installed
	@if cargo deny --version >/dev/null 2>&1; then \
		cargo deny --locked check --hide-inclusion-graph bans licenses sources; \
	else \
		echo 'deny: skipped, cargo-deny is not installed (make install-deny; takes some minutes)'; \
	fi

.PHONY: advisories
advisories: ## Known vulnerabilities, by cargo-deny; fetches their list from the network
	@cargo deny --locked check advisories

.PHONY: install-deny
install-deny: ## Install cargo-deny
	@cargo install --locked cargo-deny

.PHONY: tidy
tidy: setup ## The architecture, as a test: who imports whom, how long things are
	@cargo test --locked --workspace --profile $(PROFILE) --test tidy

.PHONY: test
test: unit cluster-test ## All tests

.PHONY: unit
unit: setup ## The tests beside the code
	@cargo test --locked --workspace --lib --bins

.PHONY: cluster-test
cluster-test: build ## The tests of whole clusters; `make cluster-test T=failover` runs one file
	@cargo test --locked --workspace --profile $(PROFILE) --no-fail-fast --test '$(or $(T),*)'

# The clients that the test below tries; where they cannot be installed, it leaves them out and says so.
.PHONY: setup-clients
setup-clients:
	@deploy/setup.sh --clients

.PHONY: redirect-matrix
redirect-matrix: build setup-clients ## curl, requests, fetch and a browser call a follower; none may be missing
	@KVDB_ALL_CLIENTS=1 cargo test --locked --workspace --profile $(PROFILE) --test redirect_matrix

.PHONY: smoke
smoke: build ## A cluster end to end, a leader killed, answers checked; about half a minute
	@$(CLUSTER) smoke

# --- Count it

# What counts instructions.
.PHONY: setup-valgrind
setup-valgrind: setup
	@deploy/setup.sh --valgrind

STEADY := $(CARGO_TARGET_DIR)/$(PROFILE)/steady

.PHONY: bench-micro
bench-micro: setup ## Times of the road's pieces, by criterion; P=script: only those with that in their name
	@cargo bench --locked --package bench --bench road -- $(P)

.PHONY: bench-check
bench-check: build setup-valgrind ## Does any piece of the road execute more instructions? P=script: only those
	@$(STEADY) check $(P)

.PHONY: bench-baseline
bench-baseline: build setup-valgrind ## Count them again into the table that bench-check compares to
	@$(STEADY) baseline

.PHONY: bench-profile
bench-profile: build setup-valgrind ## Where a piece's instructions go: P=script_transfer
	@mkdir -p .kvdb
	@$(STEADY) profile $(or $(P),script_transfer) .kvdb/profile
	@callgrind_annotate --auto=no --inclusive=$(if $(INCLUSIVE),yes,no) .kvdb/profile

# --- Break it

# What the campaigns below need beyond a build: network filters, tracing, images of disks.
.PHONY: setup-lab
setup-lab: setup
	@deploy/setup.sh --lab

JEPSEN := $(CARGO_TARGET_DIR)/$(PROFILE)/jepsen
REPORTS ?= .kvdb/jepsen
comma_flag = $(if $($(1)),--$(2) $($(1)))

.PHONY: jepsen
jepsen: build setup-lab ## Fault campaign, 10 minutes; MINUTES=n SEED=n FAULTS=a,b WORKLOADS=a,b NODES=n KNOBS=bench, LONG=1: hours
	@$(JEPSEN) run --reports $(REPORTS) --minutes $(or $(MINUTES),$(if $(LONG),240,10)) \
		$(call comma_flag,SEED,seed) $(call comma_flag,FAULTS,faults) $(call comma_flag,NODES,nodes) \
		$(call comma_flag,WORKLOADS,workloads) $(call comma_flag,HISTORIES,histories) $(call comma_flag,SECONDS,seconds) \
		$(call comma_flag,KNOBS,knobs)

.PHONY: jepsen-short
jepsen-short: build setup-lab ## The seeded campaign of CI: the same faults each time, some two minutes
	@$(JEPSEN) run --reports $(REPORTS) --minutes 2 --seed 20261124 --seconds 20

.PHONY: faults
faults: build setup-lab ## Every kind of fault by itself: is it there, can it be undone? FAULTS=a,b NODES=n
	@$(JEPSEN) faults $(call comma_flag,FAULTS,only) $(call comma_flag,NODES,nodes) $(call comma_flag,SEED,seed)

.PHONY: mutants
mutants: setup-lab ## Are planted bugs found? MUTANTS=a,b, MINUTES=n for each
	@cargo build --locked --workspace --bins --profile $(PROFILE) --features kvdb/mutants
	@cp $(CARGO_TARGET_DIR)/$(PROFILE)/kvdb $(CARGO_TARGET_DIR)/$(PROFILE)/kvdb-mutants
	@cargo build --locked --workspace --bins --profile $(PROFILE) # the one without bugs, in its place again
	@KVDB_BIN=$(CARGO_TARGET_DIR)/$(PROFILE)/kvdb-mutants $(JEPSEN) mutants --reports $(REPORTS)/mutants \
		$(call comma_flag,MUTANTS,only) $(call comma_flag,MINUTES,minutes) $(call comma_flag,SEED,seed)

.PHONY: fuzz
fuzz: setup ## Hostile requests, scripts and bytes, generated: 5 minutes; MINUTES=n, or CASES=n of each kind
	@cargo test --locked --package kvdb --lib --no-run
	@fuzz() { KVDB_FUZZ_CASES=$$1 cargo test --locked --package kvdb --lib harm; }; \
	if [ -n '$(CASES)' ]; then fuzz '$(CASES)'; exit; fi; \
	SECONDS=0; rounds=0; \
	until ((SECONDS >= 60 * $(or $(MINUTES),5))); do fuzz 500; rounds=$$((rounds + 1)); done; \
	echo "fuzz: $$rounds rounds of 500 cases of each kind, $$SECONDS s"

# --- Measure it

# What ships is measured, unless a profile is named: that has the assertions of a release.
BENCH_PROFILE := $(if $(filter command,$(origin PROFILE)),$(PROFILE),release)
BENCH := $(CARGO_TARGET_DIR)/$(BENCH_PROFILE)/bench

.PHONY: setup-bench
setup-bench: setup
	@deploy/setup.sh --bench
	@cargo build --locked --package kvdb --package bench --bins --profile $(BENCH_PROFILE)

.PHONY: bench
bench: setup-bench ## KVdb beside etcd and Redis, half an hour; QUICK=1: minutes, ROWS=a,b ROUNDS=n SECONDS=n
	@# make passes a signal on to the process that it started: that must be the benchmark, not a shell.
	@exec env KVDB_BIN=$(CARGO_TARGET_DIR)/$(BENCH_PROFILE)/kvdb $(BENCH) run $(if $(QUICK),--quick) \
		$(call comma_flag,ROWS,rows) $(call comma_flag,ROUNDS,rounds) $(call comma_flag,SECONDS,seconds)

.PHONY: bench-rows
bench-rows: setup-bench ## List what `make bench` measures
	@$(BENCH) rows

# --- Change it

.PHONY: fix
fix: setup ## Format, and let clippy mend what it can
	@cargo clippy --locked --workspace --all-targets --fix --allow-dirty --allow-staged
	@cargo fmt --all

.PHONY: golden
golden: setup ## Rewrite what the golden scripts expect; read the difference
	@UPDATE_GOLDENFILES=1 cargo test --locked --workspace --lib
	@git --no-pager diff --stat

.PHONY: reference
reference: build ## Rewrite deploy/kvdb.toml from the table of options
	@deploy/reference.sh >deploy/kvdb.toml.new
	@mv deploy/kvdb.toml.new deploy/kvdb.toml

.PHONY: clean
clean: stop ## Stop the cluster and delete its data; what was built stays, other clones use it
	@rm -rf .kvdb
