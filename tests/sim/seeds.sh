#!/usr/bin/env bash
# Some hundred seeds keep all promises, and a seed is the same story every time.
set -euo pipefail
cd "$(dirname "$0")/../.."
simulate=${DROVER_BUILD:-build/dev}/drover-simulate
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1
"$simulate" --seed 1 --twice
"$simulate" --seed 7 --twice
"$simulate" --seeds 300 --seconds 20
