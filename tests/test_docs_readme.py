"""The README's figures are those of the committed results."""

import json
import re
import shlex
from pathlib import Path

import pytest

from let_titan.preflight.__main__ import main as preflight
from tests.support import write_toml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "recipes" / "results"
README_TEXT = (ROOT / "README.md").read_text()
README = " ".join(README_TEXT.split())


@pytest.mark.parametrize("recipe", ["compare_methods", "compare_methods_outgrown"])
def test_the_labs_differences(recipe):
    found = json.loads((RESULTS / recipe / "report.json").read_text())
    last = {arm["name"]: arm["rows"][-1]["difference"] for arm in found["arms"]}
    by = {name: f"{difference['value']:+.3f}" for name, difference in last.items()}
    assert all(difference["n"] == 3 for difference in last.values())
    assert last["LET"]["low"] < 0 < last["LET"]["high"]
    row = f"| {by['LET']} (cannot be told) | {by['SALT']} | {by['RKD']} |"
    assert row in README.replace("**", "")


def test_the_gain_from_llamas_initial_weights():
    found = json.loads((RESULTS / "compare_llama_init" / "report.json").read_text())
    (last,) = (arm["rows"][-1] for arm in found["arms"] if arm["name"] == "lambda_0 = 1")
    difference = last["difference"]
    assert difference["n"] == 3
    value, low, high = (f"{difference[key]:+.3f}" for key in ("value", "low", "high"))
    assert f"{value} ({low} to {high}) with lambda_0 = 1, in 1.33 times fewer steps" in README
    torchtitans = json.loads((RESULTS / "compare_methods" / "report.json").read_text())
    best = torchtitans["arms"][0]["rows"][-1]["baseline"]["value"]
    assert f"yet {last['run']['value'] - best:.2f} above the plain baseline from" in README


def overhead(name):
    return json.loads((RESULTS / "overhead" / name / "results.json").read_text())


def spread(ratio):
    return f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})"


def test_the_cost():
    found = overhead("cpu-cpu-amd-epyc-let-alone")
    shorter = [overhead("cpu-cpu-amd-epyc"), overhead("cpu-cpu-amd-epyc-earlier")]
    share = found["teacher"]["flops_per_token"] / found["student_flops_per_token"]
    let = found["arms"]["LET"]
    quick = {arm: each["with_teacher"]["quick_step_s"] for arm, each in found["arms"].items()}
    assert [each["rounds"] for each in (found, *shorter)] == [10, 5, 6]
    others = [
        each["arms"]["LET"]["with_teacher"]["tokens_per_s_ratio"]["median"] for each in shorter
    ]
    for words in (
        f"({100 * share:.1f} % of its FLOPs), on two CPU cores that others use, too",
        f"ten rounds | {spread(let['with_teacher']['tokens_per_s_ratio'])} |",
        f"after the teacher has left | {spread(let['within_run'])} |",
        f"by the quickest tenth of the steps | {quick['baseline'] / quick['LET']:.3f} |",
        f"the FLOPs alone allow | {let['floor']:.3f} |",
        f"shorter rounds on earlier days | {others[0]:.3f}, {others[1]:.3f} |",
    ):
        assert words in README, words


def test_the_flags_that_make_a_torchtitan_config_ours(lab, no_world, capsys):
    """The config has torchtitan's names for a model, a size and data."""
    command = re.search(r"--job\.config_file llama3_8b\.toml \\\n(.*?)```", README_TEXT, flags=re.S)
    assert command is not None
    flags = shlex.split(command[1].replace("\\\n", " "))
    theirs = {
        "model": {"name": "llama3", "flavor": "8B", "hf_assets_path": "assets/hf/Llama-3.1-8B"},
        "training": {"dataset": "c4", "seq_len": 8192, "local_batch_size": 1, "steps": 1000},
        "activation_checkpoint": {"mode": "selective", "selective_ac_option": "op"},
        "validation": {"enable": False, "dataset": "c4_validation", "steps": 1200},
    }
    file = ["--job.config_file", str(write_toml(lab.folder / "llama3_8b.toml", theirs))]
    wide = ["--world-size", "64", "--gpu", "h100", "--json"]
    assert preflight([*file, *flags, *wide]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mistakes"] == [] and found["price"]["student"]["parameters"] == 8_030_261_248
    assert found["price"]["let"]["s_stop"] == 150
    assert preflight([*file, *wide]) == 2
    assert "write 'let_llama'" in capsys.readouterr().err
