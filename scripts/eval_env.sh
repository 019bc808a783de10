#!/usr/bin/env bash
# Makes .venv-eval, where lm-evaluation-harness lives: its dependencies can break torchtitan's, so it
# gets an environment of its own. What .venv has in a version that fits (torch, above all) is used
# from there; what must be another version is installed beside it, and .venv stays as it is.
# Safe to run again: it does nothing while pyproject.toml and the range below stay as they were.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

harness="lm-eval>=0.4.10,<0.5" # 0.4.10 changed when BOS is added
python=.venv-eval/bin/python
stamp=.venv-eval/let_titan.stamp
wanted="$(cksum < pyproject.toml) $harness $PWD"

if [[ $(cat "$stamp" 2> /dev/null) == "$wanted" ]]; then
    echo "eval_env: .venv-eval is up to date"
    exit 0
fi
if [[ ! -x .venv/bin/python ]]; then
    echo "eval_env: .venv is missing: run bash scripts/setup.sh first" >&2
    exit 2
fi

.venv/bin/python -m venv --clear .venv-eval
purelib='import sysconfig; print(sysconfig.get_path("purelib"))'
.venv/bin/python -c "$purelib" > "$("$python" -c "$purelib")/let_titan.pth"
torch=$(grep -om1 'torch>=[0-9.,<]*' pyproject.toml)
"$python" -m pip install "$torch" "$harness"
echo "$wanted" > "$stamp"
echo "eval_env: done"
