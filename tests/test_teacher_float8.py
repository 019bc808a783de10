"""A teacher in float8, emulated: its states, the student's gradients, and who may ask for it."""

import copy

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torchao.float8.float8_linear import Float8Linear
from torchtitan.config import JobConfig
from torchtitan.distributed import ParallelDims
from transformers import AutoModelForCausalLM

from let_titan.checks import find_mistakes
from let_titan.preflight import examine
from let_titan.preflight.examination import choose_gpu
from let_titan.preflight.gpus import GPUS
from let_titan.teacher import load_teacher
from let_titan.teacher.float8 import build_float8
from let_titan.train import LetTrainer
from tests.support import cosine, relative_error, use_fixed_batches, worst_gradient
from tests.teachers import CONFIGS, tokens
from tests.test_gradients import alignment_only
from tests.world import outside_the_world, run_world

EMULATED = ["--teacher.float8", "--quantize.linear.float8.emulate"]
CONVERTED = {"llama": 28, "opt": 24, "gpt_neox": 16}  # of 4 blocks: 7, 6 and 4 each


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Random models of the weights' usual size: at ``CONFIGS``' 0.2 noise grows by the block."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in CONVERTED:
        config = copy.deepcopy(CONFIGS[name])
        config.initializer_range = config.init_std = 0.05
        torch.manual_seed(5)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


def load(folder, float8, mesh=None, dtype=torch.float32):
    config = JobConfig()
    config.quantize.linear.float8.emulate = True
    config.quantize.linear.float8.filter_fqns = ["layers"]  # the student's own
    return load_teacher(
        folder,
        ["last", 2],
        dtype=dtype,
        device=torch.device("cpu"),
        seq_len=48,
        mesh=mesh,
        placement="replicate" if mesh is None else "shard",
        float8=build_float8(config, ParallelDims(1, 1, 1, 1, 1, 1, 1, 1), False)
        if float8
        else None,
    )


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_states_are_within_float8_of_the_teachers(name, dtype, checkpoints):
    found, wanted = load(checkpoints / name, True, dtype=dtype), load(checkpoints / name, False)
    converted = [m for m in found.model.modules() if isinstance(m, Float8Linear)]
    assert len(converted) == found.description.float8_linears == CONVERTED[name]
    assert not any(m.training for m in found.model.modules())
    assert not any(p.requires_grad for p in found.model.parameters())
    for states, exact in zip(found(tokens()), wanted(tokens()), strict=True):
        assert states.dtype == dtype and not states.requires_grad
        assert 1e-3 < relative_error(states, exact) < 0.12  # e4m3 keeps 3 bits


def in_both_placements(checkpoints):
    mesh, folder = init_device_mesh("cpu", (2,)), checkpoints / "llama"
    return [load(folder, True, placed)(tokens()) for placed in (None, mesh)]


def test_sharded_it_is_the_same(checkpoints, tmp_path):
    placements = run_world(2, in_both_placements, tmp_path, checkpoints)
    for whole, sharded in zip(*placements, strict=True):
        assert torch.equal(whole, sharded)


def test_its_scales_are_the_whole_microbatchs(checkpoints):
    """What docs/cost.md says of "tensorwise": a row's states depend on the other rows."""
    found, plain = (load(checkpoints / "opt", float8) for float8 in (True, False))
    alone, together = found(tokens()[:1])[0], found(tokens())[0][:1]
    assert 1e-3 < relative_error(alone, together) < 0.12
    assert relative_error(plain(tokens()[:1])[0], plain(tokens())[0][:1]) < 1e-5


def test_the_students_gradients_flow_and_the_teacher_has_none(lab):
    found, plain = alignment_only(lab, EMULATED), alignment_only(lab, [])
    assert cosine(found, plain) >= 0.9
    assert worst_gradient(found, plain) > 1e-3  # it was on
    trainer = LetTrainer(lab.config({}, *EMULATED))
    trainer.step = 1
    trainer.train_step(use_fixed_batches(trainer, rows=4))
    model = trainer.phase.slot.teacher.model
    assert trainer.phase.facts()["float8_linears"] == 15  # k and v have 24 rows
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in trainer.model_parts[0].parameters())
    student = trainer.model_parts[0].modules()
    trainer.close()
    assert not any(isinstance(module, Float8Linear) for module in student)


@pytest.mark.parametrize("capability", [None, (8, 0), (8, 9)])
def test_it_needs_a_gpu_that_has_it(capability, lab, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    told = [str(mistake) for mistake in find_mistakes(lab.parsed({}, "--teacher.float8"))]
    assert len(told) == (capability != (8, 9))
    assert all("teacher.float8 = true needs a GPU of compute capability 8.9" in x for x in told)
    off = lab.parsed({"lambda_0": 0.0}, "--teacher.float8")
    assert find_mistakes(off) == []  # no teacher, nothing to refuse


def test_keys_that_do_not_go_with_it(lab):
    def told(*args):
        return " ".join(map(str, find_mistakes(lab.parsed({}, *args))))

    assert told(*EMULATED) == ""
    for components in ("model,loss", "loss"):
        compiled = [*EMULATED, "--compile.enable", "--compile.components", components]
        assert "cannot be compiled: set teacher.compile = false." in told(*compiled)
        assert told(*compiled, "--teacher.no-compile") == ""
    rowwise = ["--quantize.linear.float8.recipe_name", "rowwise"]
    assert "is lost with recipe_name" in told(*EMULATED, *rowwise)
    assert 'gives bfloat16: set teacher.dtype = "bfloat16"' in told("--teacher.float8", *rowwise)


def test_the_students_format_may_be_another(lab):
    mx = lab.parsed({}, "--teacher.float8", "--model.converters=quantize.linear.mx")
    assert find_mistakes(mx, elsewhere=True) == []
    both = "--model.converters=quantize.linear.float8,quantize.linear.mx"
    (told,) = find_mistakes(lab.parsed({}, both), elsewhere=True)
    assert "keep one" in str(told)


def test_a_teacher_without_linear_layers_is_refused(lab):
    AutoModelForCausalLM.from_config(CONFIGS["gpt2"]).save_pretrained(lab.folder / "gpt2")
    config = lab.parsed({}, *EMULATED, "--teacher.checkpoint", str(lab.folder / "gpt2"))
    assert "finds nothing to convert" in " ".join(map(str, find_mistakes(config)))


def test_preflight_asks_for_another_gpu(lab):
    config = lab.parsed({}, "--teacher.float8", "--teacher.dtype", "bfloat16")
    with outside_the_world():
        (told,) = examine(config, 2, GPUS["a100"]).findings.mistakes
        assert "teacher.float8 = true needs CUDA capability 8.9" in told
        assert choose_gpu(config, None) is GPUS["h100"]
        assert examine(config, 2, GPUS["h100"]).findings.mistakes == []
