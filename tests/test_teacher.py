"""The teacher against an untouched fp32 Hugging Face model, and its life beside a student."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
)

from let_titan.errors import ConfigError
from let_titan.teacher import check_teacher, load_teacher, prepare_teacher, read_tokenizer
from let_titan.teacher.model import block_list
from let_titan.teacher.placement import ranks_of_node, shards
from let_titan.train import LetTrainer
from tests.support import Lab, clean_name, relative_error, run_world, use_fixed_batches

GGUF = Path("assets/teachers/SmolLM2-135M-Instruct.Q4_1.gguf")  # scripts/fetch_teacher.py brings it
BF16_ERROR = 3e-2  # relative, Frobenius: bf16 keeps 8 bits over a few blocks
LAYERS = ["last", 2, "middle"]
SIZES = {"vocab_size": 320, "max_position_embeddings": 128}
CONFIGS = {
    "llama": LlamaConfig(
        **SIZES,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
    ),
    "opt": OPTConfig(
        **SIZES,
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        init_std=0.2,
    ),
    "gpt_neox": GPTNeoXConfig(
        **SIZES,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        initializer_range=0.2,
    ),
    "gpt2": GPT2Config(
        vocab_size=320,
        n_positions=128,
        n_embd=32,
        n_layer=4,
        n_head=4,
        initializer_range=0.2,
    ),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    """One random model per architecture, saved by transformers."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, config in CONFIGS.items():
        torch.manual_seed(5)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


def tokens(length: int = 48) -> torch.Tensor:
    return torch.randint(0, 320, (3, length), generator=torch.Generator().manual_seed(1))


def untouched(folder: Path) -> list[torch.Tensor]:
    """States "last", block 2 and the middle block (2 of 4) of the whole fp32 model."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(tokens(), output_hidden_states=True).hidden_states
    return [states[-1], states[2], states[2]]


def load(folder: Path, layers=LAYERS, dtype=torch.float32, mesh=None, placement="replicate"):
    return load_teacher(
        folder,
        layers,
        dtype=dtype,
        device=torch.device("cpu"),
        seq_len=48,
        mesh=mesh,
        placement=placement,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_fp32_states_equal_the_untouched_model(name, checkpoints):
    teacher = load(checkpoints / name)
    for found, wanted in zip(teacher(tokens()), untouched(checkpoints / name), strict=True):
        assert relative_error(found, wanted) < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_only_the_needed_blocks_are_built_frozen(name, checkpoints):
    teacher = load(checkpoints / name, layers=[3, 1])
    assert len(block_list(teacher.model)) == 3 == teacher.facts["n_blocks"]
    model = AutoModelForCausalLM.from_pretrained(checkpoints / name).eval()
    with torch.no_grad():
        states = model(tokens(), output_hidden_states=True).hidden_states
    for found, layer in zip(teacher(tokens()), (3, 1), strict=True):
        assert relative_error(found, states[layer]) < 1e-5
        assert not found.requires_grad
    assert not teacher.model.training
    for parameter in teacher.model.parameters():
        assert not parameter.requires_grad and not parameter.is_meta
    assert not any("lm_head" in key for key, _ in teacher.model.named_parameters())


def sharded_states(checkpoints):
    """On every rank: the sharded bf16 states, and the bytes of weights held here."""
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    results = {}
    for name in CONFIGS:
        teacher = load(checkpoints / name, LAYERS, torch.bfloat16, mesh, "shard")
        parameters = list(teacher.model.parameters())
        assert all(isinstance(p, DTensor) and p.dtype == torch.bfloat16 for p in parameters)
        here = sum(p.to_local().nbytes for p in parameters)
        results[name] = (teacher(tokens()), here / teacher.facts["bytes"])
    return results


def test_sharded_over_two_ranks_in_bf16(checkpoints, tmp_path):
    for name, (states, share) in run_world(2, sharded_states, tmp_path, checkpoints).items():
        assert share == pytest.approx(0.5, abs=0.05)
        for found, wanted in zip(states, untouched(checkpoints / name), strict=True):
            assert relative_error(found, wanted) < BF16_ERROR, name


def test_bin_weights_are_converted_once(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "bin"
    model = AutoModelForCausalLM.from_pretrained(checkpoints / "llama")
    model.config.save_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    folder = prepare_teacher(str(source))
    assert folder.parent == tmp_path / "cache" and any(folder.glob("*.safetensors"))
    for found, wanted in zip(load(folder)(tokens()), untouched(checkpoints / "llama"), strict=True):
        assert relative_error(found, wanted) < 1e-5
    monkeypatch.setattr("let_titan.teacher.sources.convert_bin", pytest.fail)
    assert prepare_teacher(str(source)) == folder


def play_hub(monkeypatch, tmp_path, answers: bool, snapshot: Path) -> list[dict]:
    """Lets ``snapshot`` be what the hub has of any id; returns the keywords it is asked with."""
    asked: list[dict] = []
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("let_titan.teacher.sources.hub_answers", lambda: answers)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda checkpoint, **keywords: (asked.append(keywords), str(snapshot))[1],
    )
    return asked


@pytest.mark.parametrize("answers", [True, False])
def test_a_hub_id_is_fetched_once(answers, checkpoints, tmp_path, monkeypatch):
    asked = play_hub(monkeypatch, tmp_path, answers, checkpoints / "gpt2")
    folder = prepare_teacher("owner/name")
    for found, wanted in zip(load(folder)(tokens()), untouched(checkpoints / "gpt2"), strict=True):
        assert relative_error(found, wanted) < 1e-5
    assert prepare_teacher("owner/name") == folder
    (keywords,) = asked
    assert keywords["local_files_only"] is not answers
    assert "*.safetensors" in keywords["allow_patterns"] and "*.bin" not in str(keywords)


def test_a_hub_out_of_reach_with_nothing_cached_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("let_titan.teacher.sources.hub_answers", lambda: False)
    assert read_tokenizer("owner/name-that-nobody-has") is None
    with pytest.raises(ConfigError, match="cannot be downloaded"):
        prepare_teacher("owner/name-that-nobody-has")


class Bomb:
    def __reduce__(self):
        return (Path("exploded").write_text, ("boom",))


def test_a_bin_file_that_would_run_code_is_refused(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "bin"
    CONFIGS["llama"].save_pretrained(source)
    torch.save({"model.norm.weight": Bomb()}, source / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot be read as weights only"):
        prepare_teacher(str(source))
    assert not Path("exploded").exists()
    assert not list((tmp_path / "cache").glob("*/config.json"))


def test_gguf_against_transformers_own_reading(tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    folder = prepare_teacher(str(GGUF))
    teacher = load(folder, ["last", 15], torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32
    )
    with torch.no_grad():
        states = model.eval()(tokens(), output_hidden_states=True).hidden_states
    for found, wanted in zip(teacher(tokens()), (states[-1], states[15]), strict=True):
        assert relative_error(found, wanted) < 2 * BF16_ERROR  # 30 blocks


def test_loading_draws_nothing_from_the_random_state(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "bin"
    model = AutoModelForCausalLM.from_pretrained(checkpoints / "opt")
    model.config.save_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    before = torch.random.get_rng_state()
    load(prepare_teacher(str(source)))(tokens())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_that_do_not_fit_are_named(checkpoints, tmp_path):
    folder = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(checkpoints / "llama")
    model.save_pretrained(folder)
    model.config.num_hidden_layers = 5
    model.config.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"model\.layers\.4\..* is missing"):
        load(folder)
    model.config.num_hidden_layers, model.config.intermediate_size = 4, 128
    model.config.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"mlp\..* has shape"):
        load(folder)


def test_what_cannot_teach_is_refused(checkpoints, tmp_path):
    BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "bert")
    llama = str(checkpoints / "llama")
    for arguments, sentence in (
        ((str(tmp_path / "bert"), 64, [], 320), "not a causal language model"),
        ((llama, 256, [], 320), "longer than the teacher's context of 128"),
        ((llama, 64, [5], 320), "Teacher layer 5 does not exist"),
        ((llama, 64, [], 321), "knows 320 ids"),
        (("./nowhere", 64, [], 320), "does not exist"),
        ((str(tmp_path), 64, [], 320), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            check_teacher(*arguments)


def test_auto_placement_goes_by_bytes():
    assert not shards("auto", 2**30 - 1) and shards("auto", 2**30)
    assert shards("shard", 1) and shards("node", 1) and not shards("replicate", 2**40)


def test_the_ranks_of_a_node_share_a_teacher_within_a_stage():
    assert [ranks_of_node(rank, 16, 8) for rank in (0, 9)] == [[*range(8)], [*range(8, 16)]]
    # the pipeline's ranks are outermost: here both stages are on one node, and there on two
    assert [ranks_of_node(rank, 8, 8, 2) for rank in (1, 6)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert ranks_of_node(5, 16, 8, 2) == [*range(8)]
    assert ranks_of_node(3, 4, 1) == [3]


class Order(TorchDispatchMode):
    """Notes each all-gather as it is issued, and each block as it begins to compute."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.seen: list[str] = []
        for i, block in enumerate(block_list(model), start=1):
            first = next(m for m in block.modules() if not list(m.children()))
            first.register_forward_pre_hook(lambda *_, i=i: self.seen.append(f"block {i}"))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "allgather" in func.__name__:
            self.seen.append("gather")
        return func(*args, **(kwargs or {}))


def order_of_gathers(checkpoints):
    """Returns what a sharded teacher does, as it is placed and with FSDP2's own prefetching."""
    mesh, found = init_device_mesh("cpu", (2,)), []
    for prefetches in (True, False):
        teacher = load(checkpoints / "llama", ["last"], mesh=mesh, placement="shard")
        for module in teacher.model.modules():
            if isinstance(module, FSDPModule) and not prefetches:
                module.set_modules_to_forward_prefetch([])
        with Order(teacher.model) as order:
            teacher(tokens())
        found.append(order.seen)
    return found


def test_a_blocks_weights_are_asked_for_before_the_block_ahead_computes(checkpoints, tmp_path):
    placed, plain = run_world(2, order_of_gathers, tmp_path, checkpoints)
    blocks = [f"block {i}" for i in (1, 2, 3, 4)]
    assert plain == ["gather", *(event for block in blocks for event in ("gather", block))]
    one, two, three, four = blocks
    # the root's and block 1's, then each block's one block ahead of its turn
    ahead = ["gather", "gather", "gather", one, "gather", two, "gather", three, four]
    assert placed == ahead


@pytest.mark.parametrize("name", CONFIGS)
def test_flops_against_torchs_counter(name, checkpoints):
    teacher = load(checkpoints / name, ["last"])
    # The counter does not know the CPU's fused attention; "math" is two products, all of them.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        teacher(tokens())
    counted = counter.get_total_flops() / tokens().numel()
    assert teacher.facts["flops_per_token"] == pytest.approx(counted, rel=0.01)


def life(assets, folder, placement, compiled):
    """Trains beyond s_stop = 2; returns what was seen of the teacher on the way.

    The student is fp32 throughout, so every bf16 tensor of the process is the teacher's.
    """
    lab = Lab(assets, folder)
    config = lab.config(
        {"s_stop": 2},
        teacher__placement=placement,
        teacher__dtype="bfloat16",
        compile__enable=compiled,
        checkpoint__enable=True,
        checkpoint__interval=1,
        training__steps=3,
    )
    trainer = LetTrainer(config)
    ranks = trainer.parallel_dims.world_size
    batches = use_fixed_batches(trainer, rows=config.training.local_batch_size * ranks)
    gc.collect()
    others = bf16_tensors()  # what earlier tests may have left
    seen = {}
    for step in (1, 2, 3):
        trainer.step = step
        trainer.train_step(batches)
        trainer.checkpointer.save(step)
        if step == 1:
            model = trainer.phase.teacher.model
            parts = [*model.modules(), *model.parameters(), *model.buffers()]
            watched = [weakref.ref(part) for part in parts]
            trained = {id(p) for group in trainer.optimizers.param_groups for p in group["params"]}
            seen["in the optimizer"] = any(id(p) in trained for p in model.parameters())
            seen["unchanged by step 1"] = weights_of(model) == weights_of(reloaded(trainer))
            del model, parts
        seen[f"alive after {step}"] = sum(reference() is not None for reference in watched)
        seen[f"bf16 after {step}"] = bf16_tensors() - others
    reader = FileSystemReader(folder / "run" / "checkpoint" / "step-1")
    seen["saved"] = set(reader.read_metadata().state_dict_metadata)
    seen["student"] = {name for name, _ in trainer.model_parts[0].named_parameters()}
    trainer.close()
    return seen


def reloaded(trainer) -> nn.Module:
    phase, kept = trainer.phase, trainer.phase.teacher
    phase.load()
    fresh, phase.teacher = phase.teacher, kept
    return fresh.model


def weights_of(model: nn.Module) -> list[bytes]:
    """Returns the bytes of this rank's part of every weight."""
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in model.parameters()]
    return [part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() for part in parts]


def bf16_tensors() -> int:
    """Counts those with storage: the compiler keeps fake ones."""
    return sum(
        isinstance(item, torch.Tensor)
        and not isinstance(item, FakeTensor)
        and item.dtype == torch.bfloat16
        for item in gc.get_objects()
    )


def assert_comes_and_goes(seen):
    assert not seen["in the optimizer"]
    assert seen["unchanged by step 1"]
    assert seen["alive after 1"] > 30 and seen["bf16 after 1"] > 10
    assert seen["alive after 2"] == seen["bf16 after 2"] == 0
    assert seen["alive after 3"] == seen["bf16 after 3"] == 0
    students = {clean_name(name) for name in seen["student"]}
    names = {key.removeprefix("optimizer.state.") for key in seen["saved"] if "weight" in key}
    names -= {key for key in names if key.startswith("optimizer.param_groups.")}
    assert {
        name.removesuffix(".exp_avg").removesuffix(".exp_avg_sq").removesuffix(".step")
        for name in names
    } == students


@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.gpu)], ids=["eager", "compile"]
)
def test_beside_a_student_in_one_process(compiled, assets, tmp_path):
    assert_comes_and_goes(life(assets, tmp_path, "replicate", compiled))


def both_placements_compiled(assets, folder):
    return [life(assets, folder / name, name, True) for name in ("replicate", "shard")]


def test_beside_a_student_under_fsdp_and_compile(assets, tmp_path):
    for name in ("replicate", "shard"):
        (tmp_path / name).mkdir()
    for seen in run_world(2, both_placements_compiled, tmp_path, assets, tmp_path):
        assert_comes_and_goes(seen)
