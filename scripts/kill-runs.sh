#!/usr/bin/env bash
# Kills training with SIGKILL again and again, at random steps and while it writes checkpoints, on one
# rank and on two, with and without a frozen, cached encoder, and compares how it ends with a run that
# nobody disturbed: records and weights must be the same bit for bit.
#   scripts/kill-runs.sh [KILLS]      of each of the eight runs; 20 by default
# Needs the tests in build/ (ninja -C build lectern tests.distributed).
set -euo pipefail
cd "$(dirname "$0")/.."
export LECTERN_KILLS=${1:-20} LECTERN_SOURCE=$PWD LECTERN_BINARY=$PWD/build/lectern
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec build/tests/tests.distributed --gtest_filter='*TrainKills*'
