#!/usr/bin/env bash
# Makes the environment, fetches the teacher and runs the tests.
# Usage: scripts/test.sh [--setup-only] [pytest's arguments]
#   --setup-only   stop after the environment
#   for example    scripts/test.sh -k schedule      scripts/test.sh -m gpu -n 0
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." # a CDPATH could lead elsewhere

bash scripts/setup.sh
if [[ ${1:-} == --setup-only ]]; then
    exit 0
fi

echo "test: the teacher"
.venv/bin/python scripts/fetch_teacher.py

# Two files of tests at a time; those that start several ranks make more threads slower, not faster.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
echo "test: pytest, OMP_NUM_THREADS=$OMP_NUM_THREADS"
.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 "$@"
