#!/usr/bin/env bash
# What only a GPU can show, within ten minutes on a machine with one GPU and no network: the tests
# marked gpu, then what LET costs at 1.4B; with time left the same in float8, distillation, and 350M.
# Usage: scripts/gpu_check.sh [WHEELS]
#   WHEELS   folder of wheels for what this machine's Python lacks; scripts/wheels if it is there.
#            Torch (2.11 or later, with CUDA) is not among them: the machine has it. Elsewhere, for
#            its Python 3.12:  pip download --python-version 3.12 --only-binary=:all: -d WHEELS ...
# PYTHON=... takes another interpreter than python3; OUT=... another folder of results than
# recipes/results/gpu-DEVICE; SECONDS_LEFT=... another limit than 570, of which each part has its
# share; ONLY=float8 runs the parts whose name has that in it, a single one with all the time.
# Python's packages are installed into a temporary environment beside its own; nothing else on the
# machine changes.
set -euo pipefail

# refuse SENTENCE: ends with exit code 2
refuse() {
    echo "gpu_check: $1" >&2
    exit 2
}

wheels=scripts/wheels
if [[ $# -gt 0 ]]; then
    [[ -d $1 ]] || refuse "'$1' is no folder: name one that holds wheels, or none."
    wheels=$(realpath -- "$1") # the caller's folder is meant, not the repository
fi
python=${PYTHON:-python3}
if [[ $python == */* ]]; then
    python=$(realpath -s -m -- "$python") # not what it links to: an environment's would be its base's
fi
out=${OUT:+$(realpath -m -- "$OUT")}
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." # a CDPATH could lead elsewhere

limit=${SECONDS_LEFT:-570}

state=0
why=$(
    "$python" - << 'EOF'
import importlib.util, sys
if importlib.util.find_spec("torch") is None:
    sys.exit(3)
import torch
try:
    torch.cuda.init()
except (AssertionError, RuntimeError) as error:
    print(str(error).split(". ")[0])
    sys.exit(4)
EOF
) || state=$?
case $state in
    0) ;;
    3) refuse "'$python' has no torch: name an interpreter that has, as in PYTHON=/opt/bin/python3." ;;
    4) refuse "torch finds no CUDA GPU here ($why): run it on a machine that has one." ;;
    *) refuse "'$python' cannot be run: name an interpreter, as in PYTHON=/opt/bin/python3." ;;
esac

if [[ -d $wheels ]]; then
    environment=$(mktemp -d)
    trap 'rm -rf "$environment"' EXIT
    # Without pip: Debian's Python lacks the wheel of it, and the interpreter's own serves.
    "$python" -m venv --system-site-packages --without-pip "$environment"
    # An interpreter that is itself an environment's gives a new one its base's packages only.
    purelib='import sysconfig; print(sysconfig.get_path("purelib"))'
    own=$("$python" -c "$purelib")
    python=$environment/bin/python
    echo "$own" > "$("$python" -c "$purelib")/own.pth"
    "$python" recipes/gpu_check.py --needs > "$environment/needs.txt"
    "$python" -m pip install -q --no-index --find-links "$wheels" -r "$environment/needs.txt" ||
        refuse "'$wheels' lacks what is named above: add its wheels."
fi

"$python" recipes/gpu_check.py --seconds $((limit - SECONDS)) ${out:+--out "$out"} \
    ${ONLY:+--only "$ONLY"}
