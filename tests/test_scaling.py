"""The page on scaling: its figures are preflight's, its report says what its results hold."""

import json
from pathlib import Path

import pytest
import scaling

from tests.world import outside_the_world

RESULTS = Path(__file__).parents[1] / "recipes" / "results"


@pytest.fixture(autouse=True)
def no_world():
    with outside_the_world():
        yield


def test_figures_are_preflights():
    runs = json.loads((RESULTS / "preflight" / "results.json").read_text())["runs"]
    told = {run["config"]: run["overhead_over_run"] for run in runs}
    found = scaling.priced("7B", scaling.LLAMA_1B)
    assert found["overhead_over_run"] == pytest.approx(told["let_7b"])
    assert found["overhead_in_let_phase"] == pytest.approx(found["flops_ratio"])
    shape = {"tensor_parallel_degree": 8, "pipeline_parallel_microbatch_size": 2}
    deep = scaling.priced("7B", scaling.LLAMA_1B, **shape, pipeline_parallel_degree=4)
    assert deep["teacher_times"] == 4
    busy = 32 / (32 + 4 - 1)
    assert deep["overhead_in_let_phase"] == pytest.approx(4 * busy * found["flops_ratio"])
    shape["pipeline_parallel_degree"] = 4
    shared = scaling.priced("7B", scaling.LLAMA_1B, readers="all", **shape)
    assert shared["teacher_times"] == 1
    assert shared["overhead_in_let_phase"] == pytest.approx(busy * found["flops_ratio"])
    assert shared["teacher_bytes_per_gpu"] == deep["teacher_bytes_per_gpu"]


def test_the_report_says_what_was_found():
    folder = RESULTS / "scaling"
    results = json.loads((folder / "results.json").read_text())
    assert (folder / "report.md").read_text() == scaling.report(results)
    rows = {(row["student"], row["teacher"]): row for row in results["by_size"]}
    again = scaling.priced("1.4B", scaling.SMOLLM)
    assert rows["1.4B", "SmolLM-135M"] == json.loads(json.dumps(again))


def test_a_measurement_is_compared_with_what_was_predicted(tmp_path):
    def half(step_s, teacher_s, ratio):
        spread = dict(zip(("min", "median", "max"), ratio, strict=True))
        return {"step_s": step_s, "phases": {"teacher": teacher_s}, "tokens_per_s_ratio": spread}

    within = {"min": 0.8, "median": 0.96, "max": 1.0}
    arms = {
        "baseline": {"with_teacher": half(2.0, 0.0, (1, 1, 1))},
        "LET": {"with_teacher": half(2.2, 0.1, (0.8, 0.9, 1.0)), "within_run": within},
    }
    results = {"rounds": 3, "teacher": {"flops_per_token": 4}, "student_flops_per_token": 100}
    folders = ["gpu-some/overhead/1.4B-some", "overhead/cpu-here"]  # gpu_check.sh's, and its own
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "results.json").write_text(json.dumps({**results, "arms": arms}))
    rows = scaling.measured(tmp_path)
    assert [row["folder"] for row in rows] == folders
    for row in rows:
        assert (row["predicted"], row["phase"]) == (0.04, 0.05)
        assert row["step"] == pytest.approx([1 / 0.9 - 1, 0.0, 0.25])
        assert row["within"] == pytest.approx([1 / 0.96 - 1, 0.0, 0.25])
