#!/usr/bin/env bash
# Makes .venv and installs let_titan into it, with all that the tests and the demo need.
# Safe to run again: it does nothing while pyproject.toml stays as it was.
# PYTHON=python3.12 scripts/setup.sh takes another interpreter than python3.
# TORCH_INDEX=https://download.pytorch.org/whl/cu126 scripts/setup.sh takes PyTorch from there, now and
# whenever .venv is made anew: for a driver older than the CUDA of PyPI's, or on a node without a GPU
# for nodes that have one.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." # a CDPATH could lead elsewhere

python=${PYTHON:-python3}
stamp=.venv/let_titan.stamp
index_file=.venv/let_titan.torch_index
# The folder counts too: a .venv holds absolute paths, so a moved or copied one is made anew.
wanted="$(cksum < pyproject.toml) $PWD"
found=$(cat "$stamp" 2> /dev/null || true)
index_before=$(cat "$index_file" 2> /dev/null || true)
index=${TORCH_INDEX:-$index_before}

if [[ $found == "$wanted" && $index == "$index_before" ]]; then
    echo "setup: .venv is up to date"
    exit 0
fi

if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2> /dev/null; then
    echo "setup: '$python' is missing or not Python 3.11 to 3.14, for which torch 2.13 is built:" \
        "install one of them or name it, as in PYTHON=python3.12 bash scripts/setup.sh" >&2
    exit 2
fi

if [[ -n $found && $found != *" $PWD" ]] || ! .venv/bin/python -m pip --version &> /dev/null; then
    if [[ -L .venv ]]; then
        echo "setup: .venv is a link to $(readlink .venv), which may be another checkout's:" \
            "remove the link, or make the environment there by hand" >&2
        exit 2
    fi
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi

torch=$(grep -om1 'torch>=[0-9.,<]*' pyproject.toml)
if [[ -n $index ]]; then
    echo "setup: PyTorch from $index"
    .venv/bin/python -m pip install --no-deps --force-reinstall --index-url "$index" "$torch"
elif ! nvidia-smi -L &> /dev/null; then
    # PyPI's torch for Linux brings gigabytes of CUDA. Where this index cannot be reached, the next
    # step takes torch from wherever pip is configured to look.
    echo "setup: no NVIDIA GPU, so trying PyTorch's CPU index first (for nodes that have GPUs, set" \
        "TORCH_INDEX: docs/run-the-paper.md)"
    .venv/bin/python -m pip install --no-deps --retries 0 --timeout 5 \
        --index-url https://download.pytorch.org/whl/cpu "$torch" 2> /dev/null ||
        echo "setup: the CPU index did not answer, going on without it"
fi

echo "setup: installing let_titan and its dependencies"
.venv/bin/python -m pip install -e ".[dev]"
echo "$index" > "$index_file"
echo "$wanted" > "$stamp"
if nvidia-smi -L &> /dev/null &&
    ! .venv/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "setup: torch cannot use this machine's GPUs; where the driver is too old for it, take one of" \
        "an older CUDA: TORCH_INDEX=https://download.pytorch.org/whl/cu126 bash scripts/setup.sh" >&2
fi
echo "setup: done"
