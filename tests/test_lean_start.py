"""What is started often, by hand and over ssh, starts without torch."""

import subprocess
import sys
from pathlib import Path

from tests.handmade import BASELINE, BETTER, write_run

DRIVER = """
import sys

from let_titan.compare.__main__ import main as compare
from let_titan.watch import main as watch

SLOW = {"torch", "torchtitan", "transformers", "scipy", "matplotlib", "wandb"}
let, baseline, out = sys.argv[1:]
assert watch([let, baseline, "--once"]) == 0
assert compare(["nowhere", "--baseline", baseline, "--out", out]) == 2
assert not SLOW & set(sys.modules), SLOW & set(sys.modules)
assert compare([let, "--baseline", baseline, "--out", out]) == 0
import let_titan.compare.publish
assert not {"torch", "torchtitan"} & set(sys.modules)
"""


def test_watching_and_comparing_import_no_torch(tmp_path):
    let, baseline = (
        write_run(tmp_path / name, name == "let", losses)
        for name, losses in (("let", BETTER), ("baseline", BASELINE))
    )
    process = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, (let, baseline, tmp_path / "out"))],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert "40 of 40" in process.stdout and "0.200 nats per token lower" in process.stdout
    assert (tmp_path / "out" / "report.html").exists()
