"""Preflight: what it says of a run is what a run is, and every mistake is told at once."""

import gc
import itertools
import json
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import wraps
from unittest import mock

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.models.attention import ScaledDotProductAttentionWrapper
from torchtitan.tools.utils import device_type
from transformers import AutoModelForCausalLM

from let_titan.alignment import Alignment, cosine_alignment
from let_titan.build_alignment import build_distillation
from let_titan.config import LetConfigManager
from let_titan.data.loader import gathered
from let_titan.plan import LetPlan, resolve_plan
from let_titan.preflight import Report, examine
from let_titan.preflight.__main__ import main
from let_titan.preflight.cost import Cost, busy_share
from let_titan.preflight.findings import Findings, vocabulary_of
from let_titan.preflight.gpus import GPUS
from let_titan.preflight.memory import (
    batch_of,
    local_bytes,
    measure_activations,
    teacher_head,
    tensors_in,
    use_flash_attention,
)
from let_titan.preflight.pipeline import Phase, StageMemory, most_live
from let_titan.preflight.student import build_student
from let_titan.preflight.table import sections, show
from let_titan.preflight.world import fake_world
from let_titan.student import LetTransformer, parallelize
from let_titan.student.pipeline import or_given
from let_titan.teacher.facts import all_facts
from let_titan.teacher.load import build_without_weights, flops_per_token, materialise
from let_titan.train import LetTrainer
from let_titan.upstream import fake_tensors
from tests.support import (
    SEQ_LEN,
    Lab,
    outside_the_world,
    run_world,
    use_fixed_batches,
    write_toml,
)

A100 = GPUS["a100"]
READ_FROM_ITS_HEIRS = {"meta-llama/Llama-3.1-8B": "NbAiLab/nb-llama-3.1-8B"}
MICRO = {"training__local_batch_size": 2}
PP = {
    "training__local_batch_size": 64,
    "parallelism__pipeline_parallel_microbatch_size": 16,
    "parallelism__pipeline_parallel_degree": 2,
}
LAYOUTS = {
    "fsdp": {**MICRO, "teacher__placement": "shard"},
    "hsdp": {
        **MICRO,
        "parallelism__data_parallel_replicate_degree": 2,
        "teacher__placement": "replicate",
    },
    "ddp": {**MICRO, "parallelism__data_parallel_replicate_degree": 4},
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
}
"""Of the 4 blocks the first rank has the second, which is aligned, and with it the teacher."""


@pytest.fixture(autouse=True)
def no_world():
    with outside_the_world():
        yield


def with_teacher(lab: Lab, layout):
    """Returns (let, keys) of a run in ``layout``: distilled, if it says so, or aligned."""
    if "distill__method" not in layout:
        return {}, layout
    teacher = {"teacher__checkpoint": str(lab.assets / "teacher"), "teacher__dtype": "float32"}
    return None, {**teacher, **layout}


def write(lab: Lab, let=None, **changes) -> list[str]:
    path = write_toml(lab.folder / "preflight.toml", lab.sections(let, **changes))
    return ["--job.config_file", str(path)]


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
        config = lab.config(let, **keys)
        depth = config.parallelism.pipeline_parallel_degree
        with noted_buckets() as buckets:
            trainer = LetTrainer(config)
            rows = config.training.local_batch_size * 4 // depth
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
        teacher, distillation = trainer.phase.teacher, trainer.phase.distillation
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
    fsdp, hsdp, ddp = (real[name][0][0] for name in LAYOUTS)
    assert fsdp["weights"] < hsdp["weights"] < ddp["weights"]
    assert fsdp["adam"] > 2 * fsdp["weights"] and fsdp["teacher"] < hsdp["teacher"]
    for name in NODES:  # half of it on each of a node's two, whatever shards the student
        assert real[name][0][0]["teacher"] == pytest.approx(ddp["teacher"] / 2, rel=0.01)
    assert fsdp["buckets"] == 0 < ddp["buckets"] == ddp["gradients"]


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
    price = priced(lab, layout)
    told = price["memory_bytes_by_pipeline_rank"]
    assert len(told) == len(real[name])
    parameters = sum(run["parameters"] for _, run, _ in real[name])
    assert parameters == price["student"]["parameters"]
    assert real[name][0][1]["tokens_per_step"] == price["batch"]["tokens_per_step"]
    for rank, (held, _, peak) in enumerate(real[name]):
        assert held == {part: told[rank][part] for part in held}, rank
        if (name, rank) == HEAD_ALONE:
            continue
        # The run's buffers for states and gradients are there before its second step begins.
        meanwhile = told[rank]["activations"] + told[rank]["gradients"]
        assert meanwhile - received_bytes(name, rank) == pytest.approx(peak, rel=0.1), rank
    assert [bool(rank["teacher"]) for rank in told] == [n == OWNER[name] for n in range(len(told))]
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


OWNER = {"pp x fsdp": 0, "interleaved x fsdp": 1, "pp of four": 1}
"""The rank of the second block: stages hold 2 + 2 blocks, or 1 + 2 + 1 + 0."""


HEAD_ALONE = ("pp of four", 3)
"""A stage of norm and output without a block: 11.2 MB are told, 15.4 MB were allocated."""


def received_bytes(name, rank):
    """Of four microbatches' states and gradients [16, 64, 64], fp32."""
    stages = {"pp x fsdp": [rank], "interleaved x fsdp": [rank, rank + 2], "pp of four": [rank]}
    last = 1 if name == "pp x fsdp" else 3
    ends = sum((stage > 0) + (stage < last) for stage in stages[name])
    return ends * 4 * 16 * SEQ_LEN * 64 * 4


def test_a_walk_through_a_pipelines_step():
    """Two in flight; the first microbatch gathers weights (10) and makes gradients (20)."""
    first = {"F": Phase(18, 15), "B": Phase(21, 15)}
    later = {"F": Phase(8, 5), "B": Phase(3, -5), "REDUCE_GRAD": Phase(4, -30)}
    stage = StageMemory({}, 100, first, later)
    steps = [(0, "F"), (0, "F"), (0, "B"), (0, "F"), (0, "B"), (0, "B"), (0, "REDUCE_GRAD")]
    levels = [100 + 18, 115 + 8, 120 + 21, 135 + 8, 140 + 3, 135 + 3, 130 + 4]
    for n in range(1, len(steps) + 1):
        assert most_live(steps[:n], {0: stage}) == max(levels[:n])
    two = [(0, "F"), (1, "F")]
    assert most_live(two, {0: stage, 1: stage}) == 200 + 15 + 18


def without_storage(config) -> LetTransformer:
    with fake_world(config, 1) as dims:
        return build_student(config, vocabulary_of(config), dims).model


def fill(model: LetTransformer, config, plan: LetPlan) -> None:
    model.to_empty(device=device_type)
    model.distillation = build_distillation(config, 1)
    if model.distillation is None:
        model.alignment = Alignment([(pair.block, 1.0) for pair in plan.pairs], cosine_alignment)
    else:
        model.distillation.head = teacher_head(config, model.model_args, 48)


def recorded() -> profile:
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True)


def most_allocated(record: profile) -> int:
    """The peak of the CPU allocator's own record, over what there was at its beginning."""
    events = record.profiler.kineto_results.events()
    moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(itertools.accumulate(n_bytes for _, n_bytes in moves))


def allocated_by(step) -> int:
    """The most bytes that ``step`` needs beyond those that live when it begins."""
    if device_type == "cpu":
        with recorded() as record:
            step()
        return most_allocated(record)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def allocated_peak(model: LetTransformer, batch, precision) -> int:
    """The most that a step allocates; gradients go as they come."""
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))

    def step():
        with precision:
            loss = or_given(cross_entropy_loss)(model(**batch), batch["tokens"])
        loss.backward()

    # The profiler misses the beginning of the first, in which a GPU's libraries take workspaces.
    return [allocated_by(step) for _ in range(2)][-1]


def told_and_taken(config, precision) -> tuple[int, int]:
    """What preflight says of a step's activations, and what the step allocates here."""
    plan = resolve_plan(config)
    model = without_storage(config)
    if device_type != "cpu":
        use_flash_attention(model)
    with fake_tensors():
        fill(model, config, plan)
        told = measure_activations(model, batch_of(config, plan, 48), precision)
    model = without_storage(config)
    fill(model, config, plan)
    with torch.no_grad():
        model.init_weights()
    batch = batch_of(config, plan, 48)
    return told, allocated_peak(model, batch, precision) + local_bytes(tensors_in(batch))


def checkpointing(mode):
    return {
        "activation_checkpoint__mode": mode,
        "activation_checkpoint__selective_ac_option": "op",
    }


MODES = pytest.mark.parametrize("mode", ["none", "full", "selective"])


METHODS = ("baseline", "let", "rkd")


def keys_of(method, lab):
    """Returns (let, keys) of a run by ``method``."""
    distilled = {"distill__method": "rkd"} if method == "rkd" else {}
    return (None, {}) if method == "baseline" else with_teacher(lab, distilled)


@pytest.mark.parametrize("method", METHODS)
@MODES
def test_activations_are_what_a_cpu_allocates(mode, method, lab):
    sizes = {"training__seq_len": 128, "training__local_batch_size": 8}
    let, keys = keys_of(method, lab)
    config = lab.config(let, **keys, **checkpointing(mode), **sizes)
    told, taken = told_and_taken(config, nullcontext())
    assert told == pytest.approx(taken, rel=0.1)


@pytest.mark.gpu
@MODES
def test_activations_are_what_a_gpu_allocates(mode, lab):
    """350M in bf16 on [4, 2048] tokens, with logits of a real vocabulary's size."""
    sizes = {"training__seq_len": 2048, "training__local_batch_size": 4, "model__flavor": "350M"}
    sizes["model__pad_vocab_to_multiple_of"] = 49_152
    config = lab.parsed({}, **checkpointing(mode), **sizes)
    told, taken = told_and_taken(config, torch.autocast("cuda", torch.bfloat16))
    assert told == pytest.approx(taken, rel=0.1)


def test_checkpointing_costs_less_memory_than_none(lab):
    told = {}
    for mode in ("none", "selective", "full"):
        config = lab.config({}, activation_checkpoint__mode=mode)
        told[mode] = examine(config, 4, A100).price["memory_bytes_per_gpu"]["activations"]
    assert told["full"] < told["selective"] < told["none"]


def test_what_takes_most_of_salt_are_its_plain_steps(lab):
    """The distilled ones hold no logits; in RKD there are no others."""
    keys = {"training__seq_len": 128, "training__local_batch_size": 8}
    salt = {"distill__method": "salt", "distill__n_kd": 2}
    layouts = {"plain": None, "salt": salt, "rkd": {"distill__method": "rkd"}}
    told = {}
    for name, method in layouts.items():
        let, more = (None, {}) if method is None else with_teacher(lab, method)
        config = lab.config(let, **keys, **more)
        told[name] = examine(config, 4, A100).price["memory_bytes_per_gpu"]
    assert told["rkd"]["activations"] < told["plain"]["activations"]
    assert told["rkd"]["teacher"] > 0 and told["salt"] == told["plain"]


def counted_flops(run) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()


def test_student_flops_are_those_that_torch_counts(lab, monkeypatch):
    """Attention by plain products: the fused kernels' backward counts its recomputation, too."""
    monkeypatch.setattr(ScaledDotProductAttentionWrapper, "sdpa_backends", [SDPBackend.MATH])
    config = lab.config(None, model__flavor="demo")
    with fake_world(config, 1) as dims:
        student = build_student(config, vocabulary_of(config), dims)
    tokens = torch.zeros(2, SEQ_LEN, dtype=torch.int64, device="meta")
    found = counted_flops(lambda: student.model(tokens).sum().backward())
    assert student.flops_per_token * tokens.numel() == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("facts", all_facts().values(), ids=lambda facts: facts.name)
def test_teacher_flops_are_those_that_torch_counts(facts):
    config = facts.config()
    config.num_hidden_layers = 2
    model = build_without_weights(config, torch.float32, False)
    materialise(model, torch.device("cpu"))
    tokens = torch.zeros(1, SEQ_LEN, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        found = counted_flops(lambda: model(input_ids=tokens, use_cache=False))
    assert flops_per_token(model, SEQ_LEN) * SEQ_LEN == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("facts", all_facts().values(), ids=lambda facts: facts.name)
def test_facts_are_those_of_the_architecture_that_transformers_builds(facts):
    config = facts.config()
    assert (config.hidden_size, config.num_hidden_layers) == (facts.width, facts.blocks)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    embeddings = {
        id(weight)
        for module in (model.get_output_embeddings(), *model.modules())
        if isinstance(module, torch.nn.Embedding) or module is model.get_output_embeddings()
        for weight in module.parameters()
    }
    rest = [p.numel() for p in model.parameters() if id(p) not in embeddings]
    assert sum(p.numel() for p in model.parameters()) == facts.parameters
    assert sum(rest) == facts.parameters_without_embeddings
    read = READ_FROM_ITS_HEIRS.get(facts.name, facts.name)
    assert facts.source == f"https://huggingface.co/{read}/blob/main/config.json"
    assert facts.tokenizer_vocabulary <= facts.vocabulary
    fewer = facts.tokenizer_vocabulary < facts.vocabulary
    assert facts.tokenizer_source.startswith("https://github.com/") == fewer


def test_the_price_is_the_sum_over_the_steps():
    cost = Cost(
        student_flops=600,
        teacher_flops=30,
        tokens=1000,
        let_share=0.2,
        flops_per_s=50.0,
        n_gpus=4,
    )
    seconds = 200 / cost.tokens_per_s_in_let_phase + 800 / cost.tokens_per_s_after
    assert cost.gpu_hours == pytest.approx(4 * seconds / 3600)
    assert cost.overhead_in_let_phase == pytest.approx(0.05)
    slower = replace(cost, teacher_times=8, busy=0.5)
    assert slower.overhead_in_let_phase == pytest.approx(8 * 0.05 * 0.5)
    assert slower.tokens_per_s_after == pytest.approx(cost.tokens_per_s_after / 2)
    assert busy_share(4, 1, 4) == 4 / 7 and busy_share(4, 2, 4) == 8 / 11
    baseline = replace(cost, teacher_flops=0)
    assert cost.gpu_hours / baseline.gpu_hours - 1 == pytest.approx(cost.overhead_over_run)


def test_all_mistakes_at_once(lab, capsys):
    mistakes = ["--let.k", "9", "--validation.enable", "--validation.freq", "0"]
    mistakes += ["--model.converters", "quantize.linear.float8", "--gpu", "a100"]
    mistakes += ["--parallelism.data_parallel_shard_degree", "3", "--teacher.layer", "7"]
    code = main([*write(lab, {}), *mistakes])
    told = capsys.readouterr()
    assert code == 2
    for part in (
        "let.k = 9",
        "validation.freq = 0",
        "needs CUDA capability 8.9",
        "32 processes do not make",
        "Teacher layer 7 does not exist",
    ):
        assert told.err.count(part) == 1, part
    assert all(line.startswith("let_titan: ") for line in told.err.splitlines())
    assert not (lab.folder / "run").exists()


def test_all_wrong_names_and_types_at_once(lab, capsys):
    wrong = {"let__lamda": 1, "training__steps": "6", "nonsense__key": 1}
    path = write_toml(lab.folder / "wrong.toml", lab.sections({}, **wrong))
    assert main(["--job.config_file", str(path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and all(line.startswith("let_titan: ") for line in told)
    for part in ("did you mean let.lambda_0?", "training.steps = '6' has the", "nonsense is unkn"):
        assert sum(part in line for line in told) == 1, part


def test_what_is_not_here_is_named_and_no_mistake(lab, capsys):
    away = {
        "training__dataset_path": "none/*.zst",
        "model__hf_assets_path": "none/SmolLM-135M",
        "teacher__checkpoint": "HuggingFaceTB/SmolLM-135M",
    }
    arguments = [*write(lab, {}, **away), "--world-size", "4"]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["mistakes"] == []
    assert told["price"]["student"]["vocabulary"] == 49152
    assert told["price"]["teacher"]["parameters"] == 134515008  # tied: the LM head is no more
    for part in ("none/*.zst", "holds no tokenizer.json", "shipped facts", "were not compared"):
        assert any(part in sentence for sentence in told["unchecked"]), part
    assert main([*arguments, "--training.seq_len", "4096"]) == 2
    assert "longer than the teacher's context of 2048" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"teacher__checkpoint": "nobody/knows-this"}, "'nobody/knows-this' cannot be read"),
        ({"model__hf_assets_path": "none/unknown"}, "is not named after a model"),
        ({"teacher__checkpoint": "./none"}, "'./none' does not exist"),
        ({"let__lamda": 1}, "did you mean let.lambda_0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_priced_is_a_mistake(changes, part, lab, capsys):
    assert main([*write(lab, {}, **changes), "--world-size", "1", "--json"]) == 2
    told = capsys.readouterr()
    assert told.err.count(part) == 1
    assert any(part in sentence for sentence in json.loads(told.out)["mistakes"])


@pytest.mark.parametrize(
    ("method", "more"),
    [*((method, []) for method in METHODS), ("let", ["--teacher.cache", "states"])],
)
def test_the_table_is_made_of_what_the_json_says(method, more, lab, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    let, keys = keys_of(method, lab)
    arguments = [*write(lab, let, checkpoint__enable=True, **keys), "--world-size", "4", *more]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    table = capsys.readouterr().out
    run, price = told.pop("run"), told.pop("price")
    show(Report(run, Findings(**told), price))
    assert capsys.readouterr().out == table
    assert all(title in table for title in sections(price))


def test_documents_kept_apart_are_priced(lab, capsys):
    """Flex attention needs a GPU; preflight does not, and adds nothing for it."""
    told = []
    for more in ([], ["--data.document_attention"]):
        assert main([*write(lab, {}), *more, "--world-size", "1", "--json"]) == 0
        told.append({**json.loads(capsys.readouterr().out), "config": None})
    assert told[0] == told[1]


def test_warnings_are_told_and_do_not_refuse(lab, capsys):
    late = ["--checkpoint.enable", "--checkpoint.interval", "3"]
    assert main([*write(lab, {}), *late, "--world-size", "1"]) == 0
    assert "No checkpoint falls on s_stop = 4" in capsys.readouterr().out
    assert main([*write(lab, {}), "--checkpoint.enable", "--checkpoint.interval", "2"]) == 0
    assert "Warning" not in capsys.readouterr().out


def test_a_model_too_large_for_the_gpus_is_a_mistake(lab, capsys, monkeypatch):
    monkeypatch.setitem(GPUS, "a100", replace(A100, memory_bytes=2**20))
    assert main([*write(lab), "--world-size", "1"]) == 2
    assert "shard over more GPUs" in capsys.readouterr().err


def test_too_large_a_batch_is_a_warning(lab, capsys):
    huge = ["--training.local_batch_size", "500000", "--world-size", "1"]
    assert main([*write(lab), *huge]) == 0
    assert "lower training.local_batch_size = 500000" in capsys.readouterr().out


def test_as_a_module_without_traceback(lab):
    command = [sys.executable, "-m", "let_titan.preflight", *write(lab, {}), "--let.k", "9"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 2
    assert "let.k = 9" in process.stderr
    assert "Traceback" not in process.stderr + process.stdout
