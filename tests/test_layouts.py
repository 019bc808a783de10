"""LET on two and four ranks against one process: losses, un-clipped gradients, alignment."""

import pytest
import torch

from tests.support import Lab, one_step, run_world, worst_gradient

FSDP = {"parallelism__data_parallel_shard_degree": -1}
HSDP = {
    "parallelism__data_parallel_shard_degree": 2,
    "parallelism__data_parallel_replicate_degree": 2,
}
FULL_AC = {"activation_checkpoint__mode": "full"}
OP_AC = {
    "activation_checkpoint__mode": "selective",
    "activation_checkpoint__selective_ac_option": "op",
}
SHARD, REPLICATE = {"teacher__placement": "shard"}, {"teacher__placement": "replicate"}
COMPILE = {"compile__enable": True}

TWO_RANKS = {
    "fsdp, teacher sharded": {**FSDP, **SHARD},
    "fsdp, teacher replicated": {**FSDP, **REPLICATE},
    "fsdp, accumulation": {**FSDP, **SHARD, "training__local_batch_size": 2},
    "fsdp, full AC": {**FSDP, **FULL_AC},
    "fsdp, op AC, compile": {**FSDP, **SHARD, **OP_AC, **COMPILE},
}
FOUR_RANKS = {
    "fsdp": {**FSDP, **SHARD, "training__local_batch_size": 2},
    "hsdp": {**HSDP, **SHARD, "training__local_batch_size": 2},
    "hsdp, accumulation": {**HSDP, "training__local_batch_size": 1},
}


def step_in_each(assets, folder, layouts):
    lab = Lab(assets, folder)
    return {
        name: one_step(lab.config({}, **{"training__global_batch_size": 8, **layout}))
        for name, layout in layouts.items()
    }


@pytest.fixture(scope="module")
def one_process(assets, tmp_path_factory):
    lab = Lab(assets, tmp_path_factory.mktemp("one"))
    return one_step(lab.config({}, training__local_batch_size=8))


@pytest.mark.parametrize(("ranks", "layouts"), [(2, TWO_RANKS), (4, FOUR_RANKS)])
def test_equals_one_process(ranks, layouts, assets, tmp_path, one_process):
    found = run_world(ranks, step_in_each, tmp_path, assets, tmp_path, layouts)
    assert found.keys() == layouts.keys()
    for name, result in found.items():
        for weight, wanted in one_process["weights"].items():
            assert torch.equal(result["weights"][weight], wanted), (name, weight)
        error = worst_gradient(result["gradients"], one_process["gradients"])
        assert error < 1e-5, (name, error)
        for key in (
            "loss_metrics/global_avg_loss",
            "grad_norm",
            "let/align_loss",
            "let/align_cosine",
        ):
            assert result["line"][key] == pytest.approx(one_process["line"][key], rel=1e-5), name


def test_weights_of_a_sharded_start_are_not_repeated(one_process):
    """Upstream's sharded init on a CPU gave wq rank 32 of 64: both halves drew the same numbers."""
    wq = one_process["weights"]["layers.0.attention.wq.weight"]
    assert torch.linalg.matrix_rank(wq) == 64
