#!/usr/bin/env bash
# side_env.sh NAME PACKAGE...: makes .venv-NAME, where packages live whose dependencies can break
# torchtitan's. What .venv has in a version that fits (torch, above all) is used from there; what
# must be another version is installed beside it, and .venv stays as it is.
# Safe to run again: it does nothing while pyproject.toml and the packages stay as they were.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." # a CDPATH could lead elsewhere

name=$1
shift
folder=.venv-$name
python=$folder/bin/python
stamp=$folder/let_titan.stamp
wanted="$(cksum < pyproject.toml) $* $PWD"

if [[ $(cat "$stamp" 2> /dev/null) == "$wanted" ]]; then
    echo "${name}_env: $folder is up to date"
    exit 0
fi
if [[ ! -x .venv/bin/python ]]; then
    echo "${name}_env: .venv is missing: run bash scripts/setup.sh first" >&2
    exit 2
fi

.venv/bin/python -m venv --clear "$folder"
purelib='import sysconfig; print(sysconfig.get_path("purelib"))'
{ pwd && .venv/bin/python -c "$purelib"; } > "$("$python" -c "$purelib")/let_titan.pth"
torch=$(grep -om1 'torch>=[0-9.,<]*' pyproject.toml)
"$python" -m pip install "$torch" "$@"
echo "$wanted" > "$stamp"
echo "${name}_env: done"
