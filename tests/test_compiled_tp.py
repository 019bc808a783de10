"""Compiled tensor parallelism is refused where one tiny step of it fails, and nowhere else."""

from copy import deepcopy
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


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="it may work there")
def test_what_fails_in_backward_is_refused(lab, monkeypatch):
    """As it would without a mend of ``parallelize_student``."""
    monkeypatch.setattr("let_titan.student.parallelize.await_embeddings", lambda _: None)
    (sentence,) = refusals(lab, **COMPILE)
    assert "AttributeError" in sentence


def test_the_probe_is_made_where_the_rank_will_be(lab, monkeypatch):
    """A GPU that a process has once used keeps its context until the process ends."""
    chosen, reset = [], torch.compiler.reset
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(probe, "device_module", SimpleNamespace(set_device=chosen.append))
    monkeypatch.setattr(probe, "backward", lambda config: chosen.append(config.compile.backend))
    monkeypatch.setattr(torch.compiler, "reset", lambda: chosen.append("reset") or reset())
    config = lab.parsed({}, **TP, **COMPILE)
    before = deepcopy(config)
    assert probe.compiled_tensor_parallel_error(config) == ""
    assert chosen == [torch.device(device_type, 3), "aot_eager", "reset"]
    assert config == before


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
    monkeypatch.setattr(dist, "is_initialized", lambda: True)  # by whoever asks from within a run
    assert refusals(lab, **COMPILE) == []
