"""LET in every layout against one process: losses, un-clipped gradients, alignment, validation."""

import pytest
import torch

from let_titan.checks import data_parallel_degrees
from tests.support import Lab, one_step, run_world, worst_gradient

ROWS = 8  # of a step's global batch, and of the validation set

FSDP = {"parallelism__data_parallel_shard_degree": -1}
HSDP = {
    "parallelism__data_parallel_shard_degree": 2,
    "parallelism__data_parallel_replicate_degree": 2,
}
DDP = {"parallelism__data_parallel_replicate_degree": 2}
MICRO_1, MICRO_2, MICRO_8 = ({"training__local_batch_size": size} for size in (1, 2, 8))
FULL_AC = {"activation_checkpoint__mode": "full"}
OP_AC = {
    "activation_checkpoint__mode": "selective",
    "activation_checkpoint__selective_ac_option": "op",
}
TP = {"parallelism__tensor_parallel_degree": 2}
WHOLE_LOGITS = {"parallelism__disable_loss_parallel": True}
PP = {"parallelism__pipeline_parallel_degree": 2}
INTERLEAVED = {**PP, "parallelism__pipeline_parallel_schedule": "Interleaved1F1B"}
GPIPE = {**PP, "parallelism__pipeline_parallel_schedule": "GPipe"}
LOOPED = {**PP, "parallelism__pipeline_parallel_schedule": "LoopedBFS"}
PAIRS = {"parallelism__pipeline_parallel_microbatch_size": 2}
SHARD, REPLICATE = {"teacher__placement": "shard"}, {"teacher__placement": "replicate"}
COMPILE = {"compile__enable": True}

TWO_RANKS = {
    "fsdp, teacher sharded": {**FSDP, **SHARD},
    "fsdp, teacher replicated": {**FSDP, **REPLICATE},
    "fsdp, accumulation": {**FSDP, **SHARD, **MICRO_2},
    "fsdp, full AC": {**FSDP, **FULL_AC},
    "fsdp, op AC, compile": {**FSDP, **SHARD, **OP_AC, **COMPILE},
    "ddp": DDP,
    "ddp, accumulation, full AC": {**DDP, **MICRO_2, **FULL_AC},
    "tp": {**TP, **MICRO_8},
    "tp, accumulation, op AC": {**TP, **MICRO_2, **OP_AC},
    "tp, whole logits, full AC": {**TP, **WHOLE_LOGITS, **FULL_AC},
}
FOUR_RANKS = {
    "fsdp": {**FSDP, **SHARD, **MICRO_2},
    "hsdp": {**HSDP, **SHARD, **MICRO_2},
    "hsdp, accumulation": {**HSDP, **MICRO_1},
    "tp of four": {"parallelism__tensor_parallel_degree": 4},
    "fsdp x tp": {**FSDP, **TP, **SHARD},
    "fsdp x tp, whole logits, accumulation": {**FSDP, **TP, **WHOLE_LOGITS, **MICRO_2},
}
LOGGED = ("loss_metrics/global_avg_loss", "grad_norm", "let/align_loss", "let/align_cosine")


def config_of(lab, let, layout):
    """A run in ``layout`` that trains and validates on the same rows whatever the ranks."""
    batch = {"training__local_batch_size": 4, "training__global_batch_size": ROWS}
    changes = {**batch, **layout}
    micro = changes["training__local_batch_size"]
    replicate, shard = data_parallel_degrees(lab.parsed(let, **changes))
    validation = {
        "validation__enable": True,
        "validation__dataset": "pile",
        "validation__dataset_path": str(lab.assets / "validation.jsonl"),
        "validation__seq_len": 64,
        "validation__local_batch_size": micro,
        "validation__steps": ROWS // (micro * replicate * shard),
    }
    return lab.config(let, **changes, **validation)


# The 4 blocks are split 2 + 2 (1F1B), or 1 + 2 + 1 + 0 over stages of two ranks (Interleaved1F1B):
# the alignment is on the first stage or a later one, on rank 0 or on rank 1.
PIPELINES_OF_TWO = {
    "pp": {**PP, **MICRO_8},
    "pp, accumulation": {**PP, **PAIRS},
    "pp, full AC": {**PP, **FULL_AC, **MICRO_8},
    "pp interleaved": {**INTERLEAVED, **MICRO_8},
    "pp interleaved, accumulation": {**INTERLEAVED},
    "pp GPipe": {**GPIPE, **MICRO_8},
    "pp LoopedBFS": {**LOOPED, **MICRO_8},
}
PIPELINES_OF_FOUR = {
    "pp x fsdp": {**PP, **FSDP, **SHARD},
    "pp interleaved x fsdp": {**INTERLEAVED, **FSDP},
    "pp x tp": {**PP, **TP, **MICRO_8},
}


def step_in_each(assets, folder, layouts):
    """Returns {(layout, k): its step}."""
    lab = Lab(assets, folder)
    return {
        (name, k): one_step(config_of(lab, {"k": k}, layout))
        for name, (layout, blocks) in layouts.items()
        for k in blocks
    }


@pytest.fixture(scope="module")
def one_process(assets, tmp_path_factory):
    lab = Lab(assets, tmp_path_factory.mktemp("one"))
    return {k: one_step(config_of(lab, {"k": k}, {})) for k in (2, 4)}


def equals(found, wanted, name):
    """Compares two of ``one_step``'s results."""
    for weight, value in wanted["weights"].items():
        assert torch.equal(found["weights"][weight], value), (name, weight)
    error = worst_gradient(found["gradients"], wanted["gradients"])
    assert error < 1e-5, (name, error)
    for key in LOGGED:
        assert found["line"][key] == pytest.approx(wanted["line"][key], rel=1e-5), (name, key)
    assert len(wanted["validation"]) == 2
    assert found["validation"] == pytest.approx(wanted["validation"], rel=1e-5), name


@pytest.mark.parametrize(
    ("ranks", "blocks", "layouts"),
    [
        (2, (2,), TWO_RANKS),
        (4, (2,), FOUR_RANKS),
        (2, (2, 4), PIPELINES_OF_TWO),
        (4, (2, 4), PIPELINES_OF_FOUR),
    ],
)
def test_equals_one_process(ranks, blocks, layouts, assets, tmp_path, one_process):
    layouts = {name: (layout, blocks) for name, layout in layouts.items()}
    found = run_world(ranks, step_in_each, tmp_path, assets, tmp_path, layouts)
    assert len(found) == len(layouts) * len(blocks)
    for (name, k), result in found.items():
        equals(result, one_process[k], name)


def test_the_cases_can_fail(one_process):
    """k moves gradients and losses by far more than the tolerance; a step moves validation."""
    two, four = one_process[2], one_process[4]
    assert worst_gradient(two["gradients"], four["gradients"]) > 1e-2
    assert two["line"]["let/align_loss"] != pytest.approx(four["line"]["let/align_loss"], rel=1e-2)
    before, after = two["validation"]
    assert before != pytest.approx(after, rel=1e-3)


def test_weights_of_a_sharded_start_are_not_repeated(one_process):
    """Upstream's sharded init on a CPU gave wq rank 32 of 64: both halves drew the same numbers."""
    wq = one_process[2]["weights"]["layers.0.attention.wq.weight"]
    assert torch.linalg.matrix_rank(wq) == 64
