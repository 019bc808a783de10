#!/usr/bin/env bash
# LET and its baseline, one job each, in one wandb group (the folder that both runs share):
#
#   bash recipes/slurm/pair.sh train_configs/let_1_4b.toml [flags of let_titan.train]
#
# The baseline is given no --let.*, --teacher.* or --distill.* flag.
set -euo pipefail

let=${1:?usage: bash recipes/slurm/pair.sh train_configs/let_NAME.toml [flags of let_titan.train]}
shift
baseline="${let%.toml}_baseline.toml"

baseline_flags=()
keep=true
for word in "$@"; do # a flag and the values after it
    case $word in
    --job.dump[_-]folder*)
        echo "pair.sh: --job.dump_folder would put both runs into one folder: start each by" \
            "train.sbatch with a folder of its own (docs/run-the-paper.md, 3)." >&2
        exit 2
        ;;
    --let.* | --teacher.* | --distill.*) keep=false ;;
    --*) keep=true ;;
    esac
    if $keep; then baseline_flags+=("$word"); fi
done

preflight() {
    python -m let_titan.preflight --job.config_file "$@" >/dev/null
}
submit() {
    sbatch --job-name "$(basename "$1" .toml)" "$(dirname "$0")/train.sbatch" "$@"
}

mkdir -p outputs/slurm # sbatch makes no folder for its logs
preflight "$let" "$@"
preflight "$baseline" "${baseline_flags[@]}"
submit "$let" "$@"
submit "$baseline" "${baseline_flags[@]}"
