"""Preflight beside torchtitan's published runs: the committed results are those of this version."""

import json
from pathlib import Path

import pytest
from preflight_published import COMPILED, RUNS, Published, config_of, main, preflight

from let_titan.preflight.memory import RESERVED_OVER_PREDICTED

RESULTS = Path("recipes/results/preflight_published")
RATIO = "reserved_over_predicted"


def committed():
    return json.loads((RESULTS / "results.json").read_text())["runs"]


def test_the_range_that_preflight_tells_is_that_of_the_runs():
    runs = committed()
    assert [run["reserved_gib"] for run in runs] == [run.reserved_gib for run in RUNS]
    ratios = [run[RATIO] for run in runs]
    assert (round(min(ratios), 2), round(max(ratios), 2)) == RESERVED_OVER_PREDICTED
    for run in runs:
        assert run["predicted_gib"] * run[RATIO] == pytest.approx(run["reserved_gib"])


def test_a_run_is_predicted_as_it_was():
    number = next(i for i, run in enumerate(RUNS) if run.world_size == 256)  # FSDP2 with TP
    found, before = preflight(RUNS[number]), committed()[number]
    assert found["predicted_gib"] == pytest.approx(before["predicted_gib"], rel=1e-3)
    assert found["predicted_tokens_per_s"] == pytest.approx(before["predicted_tokens_per_s"])


def test_the_report_has_a_line_a_run(tmp_path, monkeypatch):
    runs = [
        Published(1, "8B", 8, {}, 2, 8192, "selective", COMPILED, 6667, 77.0),
        Published(5, "70B", 64, {"tensor": 8}, 1, 64, "full", [], 90, 60.0, {"a_key": "x"}),
    ]
    assert 'tensor_parallel_degree = 8\na_key = "x"\n' in config_of(runs[1])
    figures = {"predicted_gib": 50.0, RATIO: 1.25, "predicted_tokens_per_s": 100.0}
    monkeypatch.setattr("preflight_published.RUNS", runs)
    monkeypatch.setattr("preflight_published.preflight", lambda run: {**vars(run), **figures})
    main(["--out", str(tmp_path)])
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert "The reserved peak is 1.25 to 1.25 times" in lines[2]
    last = "| 5 | 70B, eager | 64: shard rest x tensor 8 | 1 x 64, full | 60.0 | 50.0 | 1.25 | 90"
    assert lines[-1].startswith(last)
    assert json.loads((tmp_path / "results.json").read_text())["runs"][0]["flags"] == COMPILED
