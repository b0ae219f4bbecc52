#!/usr/bin/env bash
# Writes the reference configuration, deploy/kvdb.toml, to standard output. `make reference` runs it.
#
# It is what the binary says of itself, with every entry but `data` commented out: a file that sets a
# default by hand keeps it when the default gets better.
#
# environment: KVDB_BIN   the binary
set -euo pipefail

bin="${KVDB_BIN:?name the binary}"
for name in "${!KVDB_@}"; do unset "$name"; done

cat <<'EOF'
# KVdb: every option, with its meaning and default. Read by `kvdb start --config FILE`.
#
# A flag (`--node-id 2`) comes before the environment (KVDB_NODE_ID=2), and that before this file. Made
# by `make reference`; the table it comes from is in src/config.rs. Keep secrets in the environment.

EOF
"$bin" start --data /var/lib/kvdb --print-config \
    | sed -E -e '/^data = /b' -e 's/^([a-z-]+ = )/# \1/' -e '/^# executor-threads = /s/= .*/= 4/' \
        -e 's/^# ([a-z-]+) is not set$/# \1 = …/' \
    | sed -e '$!b' -e '/^$/d'
