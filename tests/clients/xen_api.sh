#!/usr/bin/env bash
# npm's xen-api, the client of Xen Orchestra, unmodified: its cache and events, tasks, and its uploads and downloads with redirects.
# The package comes from the npm registry that this machine is set up for; without node or that, the test is left out and says so.
. "$(dirname "$0")/common.sh"
for command in node npm; do
    if ! command -v $command >/dev/null; then echo "skipped: no $command"; ok "nothing to run"; exit; fi
done
mkdir "$WORK/npm" && cp tests/clients/npm/package*.json tests/clients/npm/.npmrc tests/clients/npm/*.mjs "$WORK/npm"
if ! (cd "$WORK/npm" && timeout 120 npm ci --no-audit --no-fund --ignore-scripts) >"$WORK/npm.log" 2>&1; then
    tail -n 5 "$WORK/npm.log"
    if grep -qE 'ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|network' "$WORK/npm.log"; then
        echo "skipped: no npm registry"; ok "nothing to run"; exit
    fi
    not_ok "npm ci" "failed"; exit
fi
pool_up --hosts 2 --vms 1
SCRIPTS=$PWD/scripts
while IFS= read -r line; do
    echo "$line"
    case $line in
    "ok - "*) PASSED=$((PASSED + 1)) ;;
    "NOT OK - "*) FAILED=$((FAILED + 1)) ;;
    "ended with 0" | [0-9]*" passed, "*) ;;
    "ended with 1") [ "$FAILED" -gt 0 ] || not_ok "the client" "$line" ;;
    "ended with "*) not_ok "the client" "$line" ;;
    esac
done < <(cd "$WORK/npm" && export POOL_URL POOL_HTTPS_URL HOST_2_URL POOL_USER POOL_PASSWORD POOL_DIR SCRIPTS NODE_EXTRA_CA_CERTS=$POOL_CA &&
    timeout 300 node xen_api.mjs 2>&1; echo "ended with $?")
