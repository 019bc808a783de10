#!/usr/bin/env bash
# LET and its baseline, one job each, in one wandb group (the folder that both runs share):
#
#   bash recipes/slurm/pair.sh train_configs/let_1_4b.toml [flags of let_titan.train]
set -euo pipefail

let=${1:?usage: bash recipes/slurm/pair.sh train_configs/let_NAME.toml [flags of let_titan.train]}
shift
baseline="${let%.toml}_baseline.toml"
mkdir -p outputs/slurm # sbatch makes no folder for its logs

for config in "$let" "$baseline"; do
    python -m let_titan.preflight --job.config_file "$config" "$@" >/dev/null
done
for config in "$let" "$baseline"; do
    sbatch --job-name "$(basename "$config" .toml)" \
        "$(dirname "$0")/train.sbatch" "$config" "$@"
done
