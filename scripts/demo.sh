#!/usr/bin/env bash
# Trains a small student twice, without and with a teacher, and compares the two runs.
# Usage: scripts/demo.sh [--quick]
#   --quick   a few steps only: shows that everything works, proves nothing about LET
# Earlier results of the same mode are replaced.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." # a CDPATH could lead elsewhere

out=outputs/demo
common_flags=()
let_flags=()
report_flags=()
case $* in
    "") ;;
    --quick)
        out=outputs/demo_quick
        common_flags=(
            --training.steps 12 --lr_scheduler.warmup_steps 2 --metrics.log_freq 2
            --validation.freq 3 --validation.steps 1
        )
        let_flags=(--let.s_stop 6)
        report_flags=(--quick)
        ;;
    *)
        echo "demo: unknown arguments '$*': the only one is --quick" >&2
        exit 2
        ;;
esac

# stage TITLE COMMAND...: runs the command beneath a heading and tells how long it took
stage() {
    local title=$1 start=$SECONDS
    shift
    printf '\n--- %s\n' "$title"
    "$@"
    printf -- '--- %s: %d s\n' "$title" $((SECONDS - start))
}

# train ARM CONFIG FLAGS...: one process, which takes the GPU where there is one
train() {
    local folder=$out/$1 config=$2
    shift 2
    if [[ -e $folder ]]; then
        echo "demo: removing the earlier run in $folder"
        rm -r "$folder"
    fi
    .venv/bin/torchrun --standalone --nproc_per_node 1 -m let_titan.train \
        --job.config_file "$config" --job.dump_folder "$folder" "$@"
}

stage "environment" bash scripts/setup.sh
stage "teacher" .venv/bin/python scripts/fetch_teacher.py
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
stage "baseline" train baseline train_configs/demo_baseline.toml "${common_flags[@]}"
stage "LET" train let train_configs/demo.toml "${common_flags[@]}" "${let_flags[@]}"
stage "report" .venv/bin/python -m let_titan.report "$out/baseline" "$out/let" --out "$out" \
    "${report_flags[@]}"

printf '\n'
head -n 20 "$out/report.md"
printf '\ndemo: all of it is in %s/report.md (%d s in total)\n' "$out" "$SECONDS"
if [[ $out == *quick ]]; then
    echo "demo: the quick run's curves prove nothing; scripts/demo.sh trains long enough to compare"
fi
