#!/usr/bin/env bash
# Makes the environment, fetches the teacher and runs the tests.
# Usage: scripts/test.sh [--setup-only] [pytest's arguments]
#   --setup-only   stop after the environment
#   for example    scripts/test.sh -k schedule      scripts/test.sh -m gpu
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
if [[ ${1:-} == --setup-only ]]; then
    exit 0
fi

echo "test: the teacher"
.venv/bin/python scripts/fetch_teacher.py

# Tests start several processes at once: more threads in each make all of them slower.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
echo "test: pytest, OMP_NUM_THREADS=$OMP_NUM_THREADS"
.venv/bin/python -m pytest --durations=15 "$@"
