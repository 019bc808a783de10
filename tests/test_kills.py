"""A run that is killed at any moment and started again ends as if nobody had touched it."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support import Lab, write_toml

PROGRAM = Path(__file__).parents[1] / "recipes" / "kill_trials.py"


def run_trials(lab: Lab, trials: int) -> list[dict]:
    """Runs the program on a tiny config that saves and purges often; returns its outcomes."""
    changes = {
        "training__steps": 8,
        "checkpoint__enable": True,
        "checkpoint__interval": 2,
        "validation__enable": True,
        "validation__dataset": "pile",
        "validation__dataset_path": str(lab.assets / "validation.jsonl"),
        "validation__steps": 1,
        "validation__seq_len": 64,
        "validation__freq": 4,
    }
    config = write_toml(lab.folder / "kill.toml", lab.sections({"s_stop": 4}, **changes))
    out = lab.folder / "out"
    command = [sys.executable, str(PROGRAM), "--config", str(config), "--out", str(out)]
    process = subprocess.run(
        [*command, "--trials", str(trials)],
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return json.loads((out / "trials.json").read_text())["trials"]


def check(outcomes: list[dict], trials: int) -> None:
    assert len(outcomes) == trials
    assert all(outcome["differences"] == [] for outcome in outcomes)
    points = Counter(outcome["trial"]["point"] for outcome in outcomes)
    assert len(points) == 5 and set(points.values()) == {trials // 5}
    # Only a kill at a moment drawn from the clock may come too late.
    hits = Counter(outcome["trial"]["point"] for outcome in outcomes if outcome["hit"])
    assert all(hits[point] == points[point] for point in points if point != "in a step")
    assert any(len(outcome["starts"]) == 2 and outcome["starts"][1] > 1 for outcome in outcomes)


def test_twenty_kills(lab):
    check(run_trials(lab, 20), 20)


@pytest.mark.slow
def test_a_hundred_kills(lab):
    check(run_trials(lab, 100), 100)
