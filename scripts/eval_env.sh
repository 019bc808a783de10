#!/usr/bin/env bash
# Makes .venv-eval, where lm-evaluation-harness lives. Safe to run again.
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/side_env.sh" eval \
    "lm-eval>=0.4.10,<0.5" # 0.4.10 changed when BOS is added
