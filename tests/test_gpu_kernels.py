"""recipes/gpu_kernels.py: what inductor would write to a GPU's memory, where torch can tell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, str(ROOT / "recipes" / "gpu_kernels.py"), "--out"]


def run(out):
    return subprocess.run([*COMMAND, str(out)], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch was built with CUDA")
def test_a_torch_without_cuda_is_refused(tmp_path):
    done = run(tmp_path / "out")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert done.stderr.splitlines()[-1].startswith("recipes/gpu_kernels.py: this torch was built")


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch was built without CUDA")
def test_the_kernels_write_the_sum_and_nothing_else(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["ours"]["besides_bytes"] for row in rows] == [0] * len(rows)
    assert rows[0]["lerp"]["besides_bytes"] > 0 and rows[0]["ours"]["needed_bytes"] == 13_440
