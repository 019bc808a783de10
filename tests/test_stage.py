"""What torch 2.11 and 2.13 do otherwise with a pipeline's stage, and how ours meets either."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage

from let_titan.alignment import ALIGNMENT_ARGUMENTS
from let_titan.student.stage import LetStage


@pytest.fixture
def stage(monkeypatch):
    """A stage whose own class is mended, and whose parent does as torch 2.11's."""
    given = []
    buffer, peers = torch.zeros(2), [SimpleNamespace(peer=rank) for rank in (0, 1, 2)]
    for name, does in {
        "_retrieve_recv_activations": lambda *_: (buffer,),
        "_get_init_p2p_neighbors_ops": lambda *_: peers,
        "_shape_inference": lambda _, args, kwargs=None: given.append(kwargs),
        "backward_maybe_with_nosync": lambda _, kind, kwargs, last=False: given.append(kwargs),
    }.items():
        monkeypatch.setattr(PipelineStage, name, does, raising=False)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    stage = LetStage.__new__(LetStage)
    stage.given = given
    return stage


def test_buffers_made_for_a_validation_serve_a_step_too(stage):
    for has_backward in (False, True, False):
        stage.has_backward = has_backward
        (state,) = stage._retrieve_recv_activations(0)
        assert state.requires_grad == has_backward


def test_a_stage_connects_with_other_ranks_alone(stage):
    assert [op.peer for op in stage._get_init_p2p_neighbors_ops()] == [0, 2]


def test_shapes_are_inferred_without_the_alignment(stage):
    stage._shape_inference((), {"positions": 1, **dict.fromkeys(ALIGNMENT_ARGUMENTS, 2)})
    stage._shape_inference(())
    assert stage.given == [{"positions": 1}, {}]


def test_a_backward_asks_tensors_alone_for_their_gradients(stage):
    state = torch.zeros(2)
    stage.backward_maybe_with_nosync("input", {"input_values": [state, 0.1, None], "other": 1})
    stage.backward_maybe_with_nosync("weight", {"param_groups": []}, last_backward=True)
    halves = [dict(given) for given in stage.given]
    assert halves[0]["input_values"][0] is state and len(halves[0]["input_values"]) == 1
    assert halves[0]["other"] == 1 and halves[1]["param_groups"] == []
