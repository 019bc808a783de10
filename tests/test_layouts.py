"""LET in every layout against one process: losses, un-clipped gradients, alignment, validation.

``pytest tests/test_layouts.py --write-docs`` writes the table of docs/layouts.md.
"""

import os

import pytest
import torch

from let_titan.checks import check_config
from tests.context_parallel import checked, stand_in
from tests.layouts import CASES, CP, NODE_SIZE, committed, promised, rows, write
from tests.ring import ring_on_a_cpu
from tests.support import Lab, one_step, worst_gradient
from tests.world import run_world

LOGGED = ("loss_metrics/global_avg_loss", "grad_norm", "let/align_loss", "let/align_cosine")
VALIDATION = {
    "validation__enable": True,
    "validation__dataset": "pile",
    "validation__seq_len": 64,
    "validation__local_batch_size": 4,
    "validation__steps": 2,
}


def config_of(lab, let, layout):
    """A run in ``layout`` that trains on the same rows whatever the ranks."""
    config = lab.parsed(
        let,
        **{"training__local_batch_size": 4, "training__global_batch_size": 8, **layout},
        **VALIDATION,
        validation__dataset_path=str(lab.assets / "validation.jsonl"),
    )
    if layout.items() >= CP.items():
        return checked(config)
    check_config(config)
    return config


def step_in_each(assets, folder, runs, attention=stand_in):
    """Returns {(layout, k): its step} of ``runs``."""
    os.environ["LOCAL_WORLD_SIZE"] = str(NODE_SIZE)
    lab = Lab(assets, folder)
    found = {}
    for name, k in runs:
        torch.compiler.reset()  # its limit of recompilations is a process's, of many layouts here
        with attention():
            found[name, k] = one_step(config_of(lab, {"k": k}, CASES[name].keys))
    return found


@pytest.fixture(scope="module")
def one_process(assets, tmp_path_factory):
    lab = Lab(assets, tmp_path_factory.mktemp("one"))
    return {k: one_step(config_of(lab, {"k": k}, {})) for k in (2, 4)}


def error_of(found, wanted, name):
    """Compares two of ``one_step``'s results; returns the worst gradient's relative error."""
    for weight, value in wanted["weights"].items():
        assert torch.equal(found["weights"][weight], value), (name, weight)
    error = worst_gradient(found["gradients"], wanted["gradients"])
    assert error < 1e-5, (name, error)
    for key in LOGGED:
        assert found["line"][key] == pytest.approx(wanted["line"][key], rel=1e-5), (name, key)
    assert len(wanted["validation"]) == 2
    assert found["validation"] == pytest.approx(wanted["validation"], rel=1e-5), name
    return error


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_equals_one_process(ranks, assets, tmp_path, one_process, request):
    runs = [(name, k) for name, case in CASES.items() for k in case.blocks if case.ranks == ranks]
    found = run_world(ranks, step_in_each, tmp_path, assets, tmp_path, runs)
    errors: dict[str, float] = {}
    for (name, k), result in found.items():
        error = error_of(result, one_process[k], name)
        errors[name] = max(error, errors.get(name, 0.0))
    assert errors.keys() == {name for name, case in CASES.items() if case.ranks == ranks}
    if request.config.getoption("--write-docs"):
        write(errors)
    page = promised()
    for name, error in errors.items():
        said = page[name]
        held = said != "not measured" and error <= float(said)
        assert held, f"{name}: {error}, and the page says {said}; --write-docs writes it"


@pytest.mark.parametrize("ranks", [2, 4])
def test_torchs_own_ring_equals_one_process(ranks, assets, tmp_path, one_process):
    """Context parallelism as it is but for the kernel: see tests/ring.py."""
    runs = [(name, 2) for name in RINGS if CASES[name].ranks == ranks]
    found = run_world(ranks, step_in_each, tmp_path, assets, tmp_path, runs, ring_on_a_cpu)
    for (name, k), result in found.items():
        assert error_of(result, one_process[k], name) < 1e-5, name


RINGS = ("CP", "CP, accumulation, full AC", "FSDP2 x CP", "CP x TP")


def test_the_page_has_every_layout_and_no_other():
    assert committed() == rows(promised())


def test_the_cases_can_fail(one_process):
    """k moves gradients and losses by far more than the tolerance; a step moves validation."""
    two, four = one_process[2], one_process[4]
    assert worst_gradient(two["gradients"], four["gradients"]) > 1e-2
    assert two["line"]["let/align_loss"] != pytest.approx(four["line"]["let/align_loss"], rel=1e-2)
    before, after = two["validation"]
    assert before != pytest.approx(after, rel=1e-3)
