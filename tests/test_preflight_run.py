"""Preflight: the bytes, FLOPs and tokens that it tells are those of a real run on four ranks."""

import os
from contextlib import contextmanager
from functools import wraps
from unittest import mock

import pytest
from torch import nn

from let_titan.collectives import gathered
from let_titan.config import LetConfigManager
from let_titan.preflight import examine
from let_titan.preflight.memory import flash_attention, local_bytes
from let_titan.student import parallelize
from let_titan.train import LetTrainer
from tests import context_parallel
from tests.preflighted import A100, most_allocated, recorded, with_teacher, write
from tests.support import SEQ_LEN, Lab, use_fixed_batches
from tests.world import run_world

pytestmark = pytest.mark.usefixtures("no_world")

MICRO = {"training__local_batch_size": 2}
PP = {
    "training__local_batch_size": 64,
    "parallelism__pipeline_parallel_microbatch_size": 16,
    "parallelism__pipeline_parallel_degree": 2,
}
BF16 = {"training__mixed_precision_param": "bfloat16"}
"""For a ring around attention, as on a GPU."""

LAYOUTS = {
    "fsdp": {**MICRO, "teacher__placement": "shard"},
    "hsdp": {
        **MICRO,
        "parallelism__data_parallel_replicate_degree": 2,
        "teacher__placement": "replicate",
    },
    "ddp": {**MICRO, "parallelism__data_parallel_replicate_degree": 4},
    "cp x fsdp": {**MICRO, **BF16, "parallelism__context_parallel_degree": 2},
    "cp x replicas": {
        **MICRO,
        **BF16,
        "parallelism__context_parallel_degree": 2,
        "parallelism__data_parallel_replicate_degree": 2,
    },
}
DISTILLED = {
    "fsdp, rkd": {**LAYOUTS["fsdp"], "distill__method": "rkd"},
    "ddp, salt-ds": {
        **LAYOUTS["ddp"],
        "distill__method": "salt",
        "distill__n_kd": 4,
        "distill__select_of": 2,
    },
}
NODES = {
    "fsdp over nodes": {**MICRO, "teacher__placement": "node"},
    "ddp over nodes": {**LAYOUTS["ddp"], "teacher__placement": "node"},
}
NODE_SIZE = 2
PIPELINES = {
    "pp x fsdp": PP,
    "interleaved x fsdp": {**PP, "parallelism__pipeline_parallel_schedule": "Interleaved1F1B"},
    "pp of four": {
        **PP,
        "parallelism__pipeline_parallel_degree": 4,
        "parallelism__pipeline_parallel_schedule": "GPipe",
    },
    "zero-bubble x fsdp": {
        **PP,
        "parallelism__pipeline_parallel_schedule": "InterleavedZeroBubble",
    },
    "zbv x fsdp": {**PP, "parallelism__pipeline_parallel_schedule": "ZBVZeroBubble"},
    "pp x fsdp, all read for the teacher": {**PP, "teacher__pipeline": "all"},
}
"""Of the 4 blocks the first rank has the second, which is aligned, and with it the teacher."""


@contextmanager
def noted_buckets():
    """Collects {address: bytes} of the buckets that DDP hands to its hook; empty elsewhere."""
    buckets: dict[int, int] = {}
    hook = parallelize.all_reduce_sum

    @wraps(hook)
    def noting(group, bucket):
        storage = bucket.buffer().untyped_storage()
        buckets[storage.data_ptr()] = storage.nbytes()
        return hook(group, bucket)

    with mock.patch.object(parallelize, "all_reduce_sum", noting):
        yield buckets


def bytes_of_a_run(assets, folder, layouts):
    """Takes two real steps in each layout; returns what each rank of the pipeline then holds."""
    found = {}
    os.environ["LOCAL_WORLD_SIZE"] = str(NODE_SIZE)
    for name, layout in layouts.items():
        lab = Lab(assets, folder)
        let, keys = with_teacher(lab, layout)
        cp = "parallelism__context_parallel_degree" in layout
        config = (
            context_parallel.checked(lab.parsed(let, **keys)) if cp else lab.config(let, **keys)
        )
        depth = config.parallelism.pipeline_parallel_degree
        with noted_buckets() as buckets, context_parallel.stand_in():
            trainer = LetTrainer(config)
            rows = config.training.local_batch_size * 4 // depth
            rows //= config.parallelism.context_parallel_degree
            batches = use_fixed_batches(trainer, rows)
            trainer.step = 1
            trainer.train_step(batches)
            buckets.clear()  # DDP orders them anew after its first step
            trainer.optimizers.zero_grad()
            trainer.step = 2
            with recorded() as record:
                trainer.train_step(batches)
        parameters = [p for part in trainer.model_parts for p in part.parameters()]
        gradients = {p.grad.untyped_storage().data_ptr() for p in parameters if "ddp" in name}
        assert gradients.isdisjoint(buckets), "DDP keeps gradients in its buckets"
        optimizers = trainer.optimizers.optimizers
        teacher, distillation = trainer.phase.slot.teacher, trainer.phase.distillation
        frozen = [] if teacher is None else list(teacher.model.parameters())
        frozen += [] if distillation is None else [distillation.head]
        mine = {
            "weights": local_bytes(parameters),
            "gradients": local_bytes(p.grad for p in parameters),
            "adam": local_bytes(
                v for o in optimizers for s in o.state.values() for v in s.values()
            ),
            "buffers": local_bytes(b for part in trainer.model_parts for b in part.buffers()),
            "buckets": sum(buckets.values()),
            "teacher": local_bytes(frozen),
        }
        run = {
            "parameters": sum(p.numel() for p in parameters),
            "tokens_per_step": trainer.tokens_per_step,
            "student_flops": trainer.metrics_processor.num_flops_per_token,
            "teacher_flops": trainer.phase.facts()["flops_per_token"],
        }
        found[name] = gathered((mine, run, most_allocated(record)))[:: 4 // depth]
        trainer.close()
    return found


@pytest.fixture(scope="module")
def real(assets, tmp_path_factory):
    """What was found of each layout in a run on four ranks."""
    folder = tmp_path_factory.mktemp("real")
    return run_world(
        4, bytes_of_a_run, folder, assets, folder, LAYOUTS | DISTILLED | NODES | PIPELINES
    )


def priced(lab, layout):
    let, keys = with_teacher(lab, layout)
    config = LetConfigManager().parse_args(write(lab, let, **keys))
    return examine(config, 4, A100, per_node=NODE_SIZE).price


@pytest.mark.parametrize(("name", "layout"), (LAYOUTS | DISTILLED | NODES).items())
def test_bytes_flops_and_tokens_are_those_of_a_real_run_on_four_ranks(name, layout, real, lab):
    ((held, run, _),) = real[name]
    price = priced(lab, layout)
    told = price["memory_bytes_per_gpu"]
    assert held == {part: told[part] for part in held}
    assert run == {
        "parameters": price["student"]["parameters"],
        "tokens_per_step": price["batch"]["tokens_per_step"],
        "student_flops": price["student"]["flops_per_token"],
        "teacher_flops": price["teacher"]["flops_per_token"],
    }


def test_layouts_differ_in_what_a_rank_holds(real):
    fsdp, hsdp, ddp, cp, copies = (real[name][0][0] for name in LAYOUTS)
    assert fsdp["weights"] < hsdp["weights"] < ddp["weights"]
    assert fsdp["adam"] > 2 * fsdp["weights"] and fsdp["teacher"] < hsdp["teacher"]
    for name in NODES:  # half of it on each of a node's two, whatever shards the student
        assert real[name][0][0]["teacher"] == pytest.approx(ddp["teacher"] / 2, rel=0.01)
    assert fsdp["buckets"] == 0 < ddp["buckets"] == ddp["gradients"]
    # Context-parallel ranks shard as data-parallel ones do, and a replica of two is no DDP's.
    assert (cp["weights"], copies["weights"]) == (fsdp["weights"], hsdp["weights"])
    assert copies["buckets"] == 0


@pytest.mark.parametrize(
    ("let", "more"),
    [
        ({"width_map": "linear"}, 4 * 4 * 64 * 48),  # W, gradient, two moments
        ({"loss": "cca"}, 2 * 8 * (1 + 64 + 48) ** 2),
        ({"width_map": "procrustes"}, 0),  # not counted: a matrix and its sums
    ],
    ids=["linear", "cca", "procrustes"],
)
def test_what_stands_beside_the_student_is_priced(let, more, lab):
    plain, beside = (
        examine(LetConfigManager().parse_args(write(lab, keys)), 1, A100).price
        for keys in ({}, let)
    )
    memory = "memory_bytes_per_gpu"
    assert beside[memory]["teacher"] == plain[memory]["teacher"] + more
    flops = beside["teacher"]["flops_per_token"] - plain["teacher"]["flops_per_token"]
    assert flops == (6 * 64 * 48 if "width_map" in let and more else 0)


@pytest.mark.parametrize(("name", "layout"), PIPELINES.items())
def test_each_rank_of_a_pipeline_holds_what_a_real_one_does(name, layout, real, lab):
    with (  # a CPU's, as run: its flash attention takes fp32, too
        mock.patch("let_titan.preflight.memory.fused_norm", nn.RMSNorm.forward),
        mock.patch("let_titan.preflight.memory.gpu_attention", flash_attention),
    ):
        price = priced(lab, layout)
    told = price["memory_bytes_by_pipeline_rank"]
    assert len(told) == len(real[name])
    parameters = sum(run["parameters"] for _, run, _ in real[name])
    assert parameters == price["student"]["parameters"]
    assert real[name][0][1]["tokens_per_step"] == price["batch"]["tokens_per_step"]
    for rank, (held, _, peak) in enumerate(real[name]):
        assert held == {part: told[rank][part] for part in held}, rank
        # The run's buffers for states and gradients are there before its second step begins.
        meanwhile = told[rank]["activations"] + told[rank]["gradients"]
        assert meanwhile - received_bytes(name, rank) == pytest.approx(peak, rel=0.1), rank
    assert [n for n, rank in enumerate(told) if rank["teacher"]] == READERS[name]
    assert price["memory_bytes_per_gpu"] == max(told, key=lambda rank: rank["total"])


def test_each_rank_of_a_pipeline_of_tensor_parallel_ranks_is_priced(lab):
    """Matrices are halved, norms are not."""
    layout = {**PP, "training__seq_len": SEQ_LEN}
    whole = examine(lab.parsed({}, **layout), 2, A100).price["memory_bytes_by_pipeline_rank"]
    layout["parallelism__tensor_parallel_degree"] = 2
    halves = examine(lab.parsed({}, **layout), 4, A100).price["memory_bytes_by_pipeline_rank"]
    for one, half in zip(whole, halves, strict=True):
        assert one["weights"] / 2 < half["weights"] < 0.51 * one["weights"]
        assert half["activations"] < one["activations"]


READERS = {
    "pp x fsdp": [0],
    "interleaved x fsdp": [1],
    "pp of four": [1],
    "zero-bubble x fsdp": [1],
    "zbv x fsdp": [1],
    "pp x fsdp, all read for the teacher": [0, 1],
}
"""The rank of the second block: stages hold 2 + 2 blocks, or 1 + 2 + 1 + 0."""


def received_bytes(name, rank):
    """Of four microbatches' states and gradients [16, 64, 64], fp32."""
    stages = [rank, 3 - rank] if name.startswith("zbv") else [rank, rank + 2]
    one_each = name.startswith("pp ")
    stages = stages[:1] if one_each else stages
    last = 1 if name.startswith("pp x") else 3
    ends = sum((stage > 0) + (stage < last) for stage in stages)
    return ends * 4 * 16 * SEQ_LEN * 64 * 4


def test_context_parallelism_adds_its_ring_to_the_price_of_a_shorter_sequence(lab):
    """What torch's own ring allocates beside the kernel on this rank's share of the sequence."""
    price = {}
    for degree, length in ((2, SEQ_LEN), (1, SEQ_LEN // 2)):
        keys = {
            **MICRO,
            **BF16,
            "training__seq_len": length,
            "parallelism__context_parallel_degree": degree,
        }
        price[degree] = priced(lab, keys)
    ring, short = (price[degree]["memory_bytes_per_gpu"] for degree in (2, 1))
    rows = 2 * (SEQ_LEN // 2)  # of this rank, in each of its two sequences
    gathered_keys_and_values = 2 * 2 * rows * 64 * 2
    others = 2 * rows * 64 * 4 + 2 * rows * 8  # a partial output, a sum of it (fp32), positions
    ring_bytes = ring["activations"] - short["activations"]
    assert gathered_keys_and_values < ring_bytes < 2 * gathered_keys_and_values + 4 * others
    assert price[2]["batch"]["tokens_per_step"] == 2 * 2 * SEQ_LEN  # two groups of two ranks
    assert price[2]["cost"]["overhead_in_let_phase"] > price[1]["cost"]["overhead_in_let_phase"]


@pytest.mark.parametrize(
    ("rows", "tp", "cp", "times"), [(4, 2, 2, 1), (2, 2, 2, 2), (3, 2, 3, 2), (1, 2, 2, 4)]
)
def test_the_teacher_costs_as_often_as_ranks_read_the_same_rows(rows, tp, cp, times, lab):
    keys = {
        **BF16,
        "training__local_batch_size": rows,
        "training__seq_len": 2 * tp * cp * 8,
        "parallelism__tensor_parallel_degree": tp,
        "parallelism__context_parallel_degree": cp,
    }
    assert examine(lab.parsed({}, **keys), tp * cp, A100).price["cost"]["teacher_times"] == times
