"""recipes/time_series.py: the study, its statistics, its tiny form."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats
from series.findings import critical_difference, find, holm, signed_rank
from series.study import Store, Unfinished, run_all
from time_series import STUDY, TINY, finished, main

from tests.classifiers import BASELINE, LET

PROGRAM = Path(__file__).parents[1] / "recipes" / "time_series.py"


def test_a_stopped_study_goes_on(tmp_path, monkeypatch):
    store = Store(tmp_path / "runs.jsonl")
    runs = run_all(TINY, store)
    first = [next(runs) for _ in range(9)]
    runs.close()
    again = Store(tmp_path / "runs.jsonl", trains=False)
    assert list(finished(TINY, again)) == first
    with pytest.raises(Unfinished):
        list(run_all(TINY, again))
    known = len(store.records)
    whole = list(run_all(TINY, Store(tmp_path / "runs.jsonl")))
    assert whole[:9] == first and len(whole) == 14
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == known + 5


def test_a_torn_last_line_is_a_run_to_come(tmp_path):
    path = tmp_path / "runs.jsonl"
    with pytest.raises(Unfinished):
        Store(path, trains=False).finish({"seed": 0}, dict)
    store = Store(path)
    whole = [store.finish({"seed": seed}, lambda: {"curve": []}) for seed in (0, 1)]
    path.write_text(path.read_text()[:-5])
    read = Store(path, trains=False)
    assert list(read.records.values()) == whole[:1]
    Store(path).finish({"seed": 1}, lambda: {"curve": []})
    assert list(Store(path).records.values()) == whole


def record(arm, seed, accuracies, name="a"):
    curve = [[10 * i, accuracy, 1.0] for i, accuracy in enumerate(accuracies)]
    of_student = {"purpose": "student", "student": "S", "arm": arm, "cpu_s": 0.02}
    return {**of_student, "set": name, "seed": seed, "curve": curve}


TEACHER = {"purpose": "teacher", "set": "a", "seed": 0, "cpu_s": 1.5, "curve": [[10, 0.7, 1.0]]}


def test_findings_pair_seeds_and_count_steps():
    study = replace(
        STUDY, sets=("a",), students={"S": STUDY.teacher}, arms=(BASELINE, LET), seeds=(0, 1)
    )
    runs = [
        record("baseline", 0, [0.0, 0.4, 0.8]),
        record("LET", 0, [0.0, 0.8, 0.9]),
        record("baseline", 1, [0.0, 0.2, 0.6]),
        record("LET", 1, [0.0, 0.6, 0.5]),
        record("LET", 2, [0.0, 0.0, 0.0]),  # has no partner
        TEACHER,
    ]
    assert find(study, runs).teachers["a"].value == pytest.approx(0.7)
    baseline, let = find(study, runs).arms["S"]
    assert let.difference.value == pytest.approx(0.0) and let.difference.n == 2
    assert baseline.steps == pytest.approx(20) and let.steps == pytest.approx(10)
    assert let.level.costs["steps"].speed_up.value == pytest.approx(2.0)
    assert let.cpu_ms == pytest.approx(1.0)
    unreached = find(study, [*runs[:3], TEACHER, record("LET", 1, [0.0, 0.5, 0.5])]).arms["S"][1]
    assert unreached.level.reached == 1 and unreached.steps == pytest.approx(15)
    assert unreached.level.costs["steps"].speed_up is None


def test_tests_over_sets_against_scipy_and_tables():
    assert signed_rank([1, 2, 3, 4, 5, 6, 7]) == pytest.approx(2 / 2**7)
    assert signed_rank([0.0, 0.0, 1e-17]) == 1.0
    assert signed_rank([1, 1, 1, -1]) == pytest.approx(2 * 5 / 2**4)  # ranks of ties are equal
    assert critical_difference(4, 10) == pytest.approx(2.569 * math.sqrt(4 * 5 / 60), rel=1e-3)
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx(
        {"a": 0.06, "b": 0.03, "c": 0.06}
    )


def test_ranks_and_friedman_over_sets():
    study = replace(STUDY, sets=("a", "b", "c"), students={"S": STUDY.teacher})
    ends = {"baseline": (0.5, 0.6, 0.9), "LET": (0.7, 0.6, 0.8), "KD": (0.9, 0.8, 0.7)}
    runs = [
        record(arm, 0, [0.0, end], name)
        for arm, of_sets in ends.items()
        for name, end in zip("abc", of_sets, strict=True)
    ]
    over = find(study, [*runs, TEACHER]).over_sets["S"]
    assert over.n_sets == 3
    assert over.ranks == pytest.approx(
        {"baseline": (3 + 2.5 + 1) / 3, "LET": (2 + 2.5 + 2) / 3, "KD": (1 + 1 + 3) / 3}
    )
    assert over.friedman == pytest.approx(stats.friedmanchisquare(*ends.values()).pvalue)


def test_report_of_nothing_tells_the_cure(tmp_path, capsys):
    assert main(["--tiny", "--report", "--out", str(tmp_path)]) == 2
    assert "run it without --report" in capsys.readouterr().err


def test_tiny_form_does_not_write_over_the_study(capsys):
    with pytest.raises(SystemExit):
        main(["--tiny"])
    assert "name a folder by --out" in capsys.readouterr().err


def test_tiny_form_runs_and_reports(tmp_path):
    command = [sys.executable, str(PROGRAM), "--tiny", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    results = json.loads((tmp_path / "results.json").read_text())
    rows = results["arms"]["TimesNet"]
    assert [row["arm"] for row in rows] == ["baseline", "LET", "KD"]
    assert all(row["difference"]["n"] == 2 for row in rows)
    text = (tmp_path / "report.md").read_text()
    assert "so far" not in text and TINY.hypothesis in text
    charts = (tmp_path / "differences.png", tmp_path / "curves.png")
    assert all(chart.stat().st_size > 10_000 for chart in charts)
