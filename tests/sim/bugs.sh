#!/usr/bin/env bash
# Each deliberate bug is found by the simulator within a minute of seeds; so it would find the like of them.
set -uo pipefail
cd "$(dirname "$0")/../.."
failed=0
for bug in unpause_before_commit_durable epoch_check_off reply_before_durability; do
    log=$(mktemp)
    if scripts/simulate --preset "${DROVER_PRESET:-dev}" --bug $bug >"$log" 2>&1; then
        echo "$bug: $(grep -m1 BROKEN "$log"); $(tail -n 1 "$log")"
    else
        echo "$bug was not found:"; tail -n 20 "$log"; failed=1
    fi
    rm -f "$log"
done
exit $failed
