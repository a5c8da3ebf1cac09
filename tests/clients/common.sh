# Sourced by the shell tests of this folder: a pool of their own, and counted checks.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
WORK=$(mktemp -d)
PASSED=0 FAILED=0
pool_up() { # [scripts/pool arguments]
    local assignments
    assignments=$(scripts/pool up --dir "$WORK/pool" "$@") || { echo "no pool: $assignments"; exit 1; }
    eval "$assignments"
}
finish() {
    scripts/pool down --dir "$WORK/pool" >/dev/null 2>&1
    rm -rf "$WORK"
    echo "$PASSED passed, $FAILED failed"
    [ "$FAILED" = 0 ] && [ "$PASSED" -gt 0 ]
}
trap 'finish; exit $?' EXIT
ok() { PASSED=$((PASSED + 1)); echo "ok - $1"; }
not_ok() { FAILED=$((FAILED + 1)); echo "NOT OK - $1: $2"; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got '$2', want '$3'"; fi; }
has() { if grep -qE -- "$2" <<<"$3"; then ok "$1"; else not_ok "$1" "no /$2/ in $(head -c 400 <<<"$3" | tr '\n' ' ')"; fi; }
