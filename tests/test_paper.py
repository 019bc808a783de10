"""Whole runs on a device on paper: no tensor is on the wrong one, and LET waits for no more."""

import json
import subprocess
import sys

from tests.support import SEQ_LEN


def trained(runs, assets, folder):
    """Returns where the host waits in each step of each run, all in one process."""
    validation = {
        "enable": True,
        "dataset": "pile",
        "dataset_path": str(assets / "validation.jsonl"),
        "local_batch_size": 4,
        "seq_len": SEQ_LEN,
        "steps": 2,
        "freq": 3,
    }
    keys = {f"validation__{key}": value for key, value in validation.items()}
    keys |= {"metrics__log_freq": 100, "training__steps": 4}
    told = json.dumps([(let, {**keys, **changes}) for let, changes in runs])
    command = [sys.executable, "-m", "tests.paper_run", str(assets), str(folder), told]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_step_with_a_teacher_waits_where_the_baselines_does(assets, tmp_path):
    """Steps 2 and 3 have no line in the log."""
    norm = {"teacher_norm": "standardize", "width_map": "orthogonal"}
    baseline, let, normed = trained([(None, {}), ({}, {}), (norm, {})], assets, tmp_path)
    assert any(wait.startswith("tolist guard.py") for wait in baseline[1])  # it sees what is there
    for step in (1, 2):
        assert let[step] == normed[step] == baseline[step]
    assert len(let[3]) > len(baseline[3])  # s_stop's line


def test_a_teachers_own_rows_are_cut_without_asking_the_device(assets, tmp_path, readers):
    """Side by side ("equal") and end to end ("other"); to go there is all that they add."""
    runs = [(None, {})]
    for name in ("equal", "other"):
        keys = {"teacher__tokenizer": "align", "teacher__checkpoint": str(readers / name)}
        runs.append(({}, keys))
    baseline, equal, other = trained(runs, assets, tmp_path)
    for step in (1, 2):
        assert other[step] == equal[step] and set(other[step]) == set(baseline[step])


def test_no_variant_leaves_the_device(assets, tmp_path):
    teacher = {"teacher__checkpoint": str(assets / "teacher"), "teacher__dtype": "bfloat16"}
    runs = [
        ({"loss": "cca", "cca_every": 1, "cca_tokens": 0.0, "diagnostics_freq": 1}, {}),
        ({"width_map": "procrustes", "procrustes_every": 1}, {}),
        ({"width_map": "linear"}, {}),
        (None, {**teacher, "distill__method": "rkd"}),
        (None, {**teacher, "distill__method": "salt", "distill__n_kd": 2, "distill__select_of": 2}),
    ]
    assert [len(steps) for steps in trained(runs, assets, tmp_path)] == [4] * len(runs)
