"""Compiled tensor parallelism is refused where one tiny step of it fails, and nowhere else."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torchtitan.tools.utils import device_type

from let_titan.checks import find_mistakes
from let_titan.checks.machine import compiled_tensor_parallel_mistakes
from let_titan.student import probe
from tests.layouts import COMPILE, FULL_AC, OP_AC, TP
from tests.world import outside_the_world


@pytest.fixture(autouse=True)
def no_world():
    with outside_the_world():
        yield


def refusals(lab, **changes):
    config = lab.parsed({}, **TP, **changes)
    return [str(mistake) for mistake in compiled_tensor_parallel_mistakes(config)]


def test_what_works_is_not_refused(lab):
    """docs/layouts.md has it against one process."""
    before = torch.get_rng_state()
    assert refusals(lab, **COMPILE) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert not dist.is_initialized()


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="it may work there")
@pytest.mark.parametrize("checkpointing", [FULL_AC, OP_AC], ids=["full", "op"])
def test_what_fails_is_refused_by_name(checkpointing, lab):
    """torch 2.13 saves a DeviceMesh for backward as if it were a tensor."""
    (sentence,) = refusals(lab, **COMPILE, **checkpointing)
    mode = checkpointing["activation_checkpoint__mode"]
    for part in ("tensor_parallel_degree = 2", repr(mode), f"torch {torch.__version__} on a"):
        assert part in sentence
    assert "AssertionError: expected all tensors" in sentence


def test_the_probe_is_made_where_the_rank_will_be(lab, monkeypatch):
    """A GPU that a process has once used keeps its context until the process ends."""
    chosen = []
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(probe, "device_module", SimpleNamespace(set_device=chosen.append))
    monkeypatch.setattr(probe, "backward", lambda _: chosen.append("probed"))
    assert refusals(lab, **COMPILE) == []
    assert chosen == [torch.device(device_type, 3), "probed"]


def test_only_compiled_blocks_are_probed_and_only_where_the_run_will_be(lab, monkeypatch):
    monkeypatch.setattr(probe, "backward", lambda _: 1 / 0)
    (sentence,) = refusals(lab, **COMPILE)
    assert "ZeroDivisionError: division by zero" in sentence
    assert refusals(lab) == []
    assert refusals(lab, **COMPILE, compile__components=["loss"]) == []
    config = lab.parsed({}, **TP, **COMPILE)
    told = [str(m) for m in find_mistakes(config, 2)]
    away = [str(m) for m in find_mistakes(config, 2, elsewhere=True)]
    assert sentence in told and sentence not in away
