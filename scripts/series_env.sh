#!/usr/bin/env bash
# Makes .venv-series, where aeon lives, whose wheel ships the data of recipes/time_series.py: numba
# needs an older numpy than the trainer has, and aeon an older pandas. Safe to run again.
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/side_env.sh" series "aeon>=1.4,<2"
