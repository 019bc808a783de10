"""What a config asks of the machine: its GPUs, their number and what they can do."""

from types import SimpleNamespace

import pytest
import torch

from let_titan.checks import compiler, find_mistakes, gpus, machine
from let_titan.errors import LocalConfigError


@pytest.mark.parametrize("capability", [None, (8, 0), (8, 9), (10, 0)])
def test_low_precision_needs_a_gpu_that_has_it(capability, lab, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    needed = {"quantize.linear.float8": (8, 9), "quantize.linear.mx": (10, 0)}
    for converter, least in needed.items():
        config = lab.parsed(None, "--model.converters", converter)
        mistakes = [str(mistake) for mistake in find_mistakes(config)]
        assert find_mistakes(config, elsewhere=True) == []
        if capability is not None and capability >= least:
            assert mistakes == []
            continue
        found = "here is none" if capability is None else f"this GPU has {capability[0]}."
        assert len(mistakes) == 1 and converter in mistakes[0] and found in mistakes[0]


@pytest.fixture
def no_compiler_named(monkeypatch):
    """Takes away what clusters' modules and conda set."""
    for name in ("CC", "CXX", *compiler.SEARCHED):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("gpu", "programs", "cure"),
    [
        (False, {"CXX": "ccache g++"}, "CXX = 'ccache g++' does not name: install gcc and g++"),
        (False, {"CXX": "sh"}, None),
        (False, {"PATH": "/nowhere"}, "this machine lacks: install gcc and g++, name a program in"),
        (True, {"PATH": "/nowhere"}, "name a program in CC,"),
        (True, {"CC": "gcc -m64"}, "CC = 'gcc -m64' does not name"),  # nor does Triton split it
        (True, {"CC": "sh"}, None),
    ],
)
def test_compile_needs_a_compiler(gpu, programs, cure, lab, no_compiler_named, monkeypatch):
    monkeypatch.setattr(compiler, "HAS_ACCELERATOR", gpu)
    for name, value in programs.items():
        monkeypatch.setenv(name, value)
    told = [str(mistake) for mistake in find_mistakes(lab.parsed(None, "--compile.enable"))]
    assert len(told) == (cure is not None) and all(cure in sentence for sentence in told)
    for keys in (
        {"enable": False},
        {"enable": True, "backend": "eager"},
        {"enable": True, "components": []},
    ):
        asked = {f"compile__{key}": value for key, value in keys.items()}
        assert find_mistakes(lab.parsed(None, **asked, teacher__compile=False)) == []
    assert find_mistakes(lab.parsed(None, "--compile.enable"), elsewhere=True) == []


def test_compile_needs_pythons_headers(lab, tmp_path, no_compiler_named, monkeypatch):
    monkeypatch.setattr(compiler.sysconfig, "get_path", lambda *_: str(tmp_path))
    config = lab.parsed(None, "--compile.enable")
    (told,) = find_mistakes(config)
    assert f"{tmp_path} has no Python.h" in str(told) and "compile.enable = false" in str(told)
    monkeypatch.setattr(compiler, "HAS_ACCELERATOR", True)
    flex = lab.parsed(None, "--data.document_attention")
    (told,) = compiler.compiler_mistakes(flex)
    assert "data.document_attention = true needs Python's headers" in str(told)
    monkeypatch.setenv("CPATH", "/somewhere/else")
    assert find_mistakes(config) == []


@pytest.mark.parametrize(("per_node", "refused"), [(None, True), ("3", True), ("2", False)])
def test_a_teacher_within_nodes_needs_to_know_them(per_node, refused, lab, monkeypatch):
    config = lab.parsed({}, "--teacher.placement", "node")
    monkeypatch.setenv("WORLD_SIZE", "4")
    if per_node is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", per_node)
    told = " ".join(map(str, find_mistakes(config)))
    assert ('teacher.placement = "node" needs equally many processes' in told) == refused
    assert find_mistakes(config, 4, elsewhere=True) == []


def two_gpus(monkeypatch):
    for module in (gpus, machine):
        monkeypatch.setattr(module, "HAS_ACCELERATOR", True)
    monkeypatch.setattr(gpus, "device_module", SimpleNamespace(device_count=lambda: 2))


@pytest.mark.parametrize(
    ("rank", "per_node", "refused"),
    [("0", "3", True), ("2", None, True), ("1", "2", False), ("0", None, False)],
    ids=["rank 0 of three", "the third, no torchrun", "the second of two", "one"],
)
def test_every_process_needs_a_gpu_of_its_own(rank, per_node, refused, lab, monkeypatch):
    """Rank 0 says so, which has one; and no rank goes on to try what only a GPU can tell."""
    two_gpus(monkeypatch)
    tried = []
    monkeypatch.setattr(machine, "compiled_tensor_parallel_error", lambda _: tried.append(1))
    monkeypatch.setenv("LOCAL_RANK", rank)
    if per_node is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", per_node)
    config = lab.parsed(None, "--parallelism.tensor_parallel_degree=2", "--compile.enable")
    told = " ".join(map(str, find_mistakes(config, 2)))
    sentence, cure = "3 processes were started on this node", "torchrun --nproc_per_node 2,"
    assert (sentence in told) == (cure in told) == refused
    assert bool(tried) != refused
    assert sentence not in " ".join(map(str, find_mistakes(config, 2, elsewhere=True)))


@pytest.mark.skipif(gpus.HAS_ACCELERATOR, reason="here torch can use the GPUs")
def test_a_run_does_not_take_the_cpu_beside_gpus_that_torch_cannot_use(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    config = lab.parsed()
    assert find_mistakes(config) == []
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    (told,) = find_mistakes(config)
    assert isinstance(told, LocalConfigError)
    for part in ("GPUs (2) cannot", torch.__version__, "TORCH_INDEX=", "CUDA_VISIBLE_DEVICES= to"):
        assert part in str(told)
    assert find_mistakes(config, elsewhere=True) == []
    for value, refused in (("0,1", True), ("GPU-8f2", True), ("", False), ("-1", False)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert bool(find_mistakes(config)) == refused
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(gpus.os, "access", lambda path, mode: path.name != "nvidia0")
    (told,) = find_mistakes(config)
    assert "GPUs (1) cannot" in str(told)


def test_torch_says_why_it_has_no_gpu(monkeypatch):
    def init():
        raise RuntimeError("The driver is too old (found version 12040). Please update it. Or not.")

    monkeypatch.setattr(torch.cuda, "init", init)
    assert gpus.why_no_gpu() == "The driver is too old (found version 12040)"


def test_a_ring_on_a_gpu_needs_a_kernel(lab, monkeypatch):
    """On a CPU it is refused in any precision."""
    two_gpus(monkeypatch)
    ring = {"parallelism__context_parallel_degree": 2}
    told = "where fp32 attention has no kernel for torch's ring"
    for precision, refused in (("float32", True), ("bfloat16", False)):
        keys = {**ring, "training__mixed_precision_param": precision}
        assert (told in " ".join(map(str, find_mistakes(lab.parsed(None, **keys), 2)))) == refused
    assert find_mistakes(lab.parsed(None, training__mixed_precision_param="float32"), 2) == []


def test_emulated_float8(lab):
    emulated, compiled = "--quantize.linear.float8.emulate", "--compile.enable"
    student = ["--model.converters=quantize.linear.float8"]
    assert find_mistakes(lab.parsed(None, *student, emulated)) == []
    assert find_mistakes(lab.parsed(None, *student, compiled), elsewhere=True) == []
    (told,) = find_mistakes(lab.parsed(None, *student, emulated, compiled))
    assert "cannot be compiled" in str(told)
    recipe = ["--quantize.linear.float8.recipe_name", "rowwise"]
    (told,) = find_mistakes(lab.parsed(None, *student, emulated, *recipe))
    assert "is lost with recipe_name = 'rowwise'" in str(told)
    assert find_mistakes(lab.parsed(None, emulated, *recipe)) == []  # nobody multiplies in float8
