#!/usr/bin/env bash
# Some hundred seeds keep all promises, and a seed is the same story every time. As many as a test run has time for: under a
# sanitizer one takes several times as long.
set -euo pipefail
cd "$(dirname "$0")/../.."
simulate=${DROVER_BUILD:-build/dev}/drover-simulate
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1
"$simulate" --seed 1 --twice
"$simulate" --seed 7 --twice
case ${DROVER_PRESET:-dev} in
asan) "$simulate" --seeds 300 --seconds 15 ;;
*) "$simulate" --seeds 300 --seconds 30 ;;
esac
