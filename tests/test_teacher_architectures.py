"""Teachers whose attention is no SDPA, or that have none, and those that cannot be used."""

import json
import shutil

import pytest
import torch
import transformers
from torch.distributed.device_mesh import init_device_mesh
from transformers import (
    ApertusConfig,
    AutoModelForCausalLM,
    BloomConfig,
    FalconH1Config,
    Gemma2Config,
    GPTNeoConfig,
    Lfm2Config,
    MambaConfig,
    MptConfig,
    OpenAIGPTConfig,
    OPTConfig,
    Qwen2MoeConfig,
)

from let_titan.checks import find_mistakes
from let_titan.errors import ConfigError
from let_titan.preflight import examine
from let_titan.teacher import check_part
from let_titan.teacher.attention import is_eager, mixes_without_attention
from let_titan.teacher.description import flops_per_token
from let_titan.train import LetTrainer
from tests.preflighted import A100
from tests.support import relative_error
from tests.teachers import GROUPED, SIZES, load, tokens
from tests.world import outside_the_world, run_world

EAGER = {
    "bloom": BloomConfig(
        vocab_size=320, hidden_size=32, n_layer=4, n_head=4, initializer_range=0.2
    ),
    "gemma2": Gemma2Config(
        **SIZES,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        sliding_window=16,
        initializer_range=0.2,
    ),
    "gpt_neo": GPTNeoConfig(
        **SIZES,
        hidden_size=32,
        num_layers=4,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=16,
        initializer_range=0.2,
    ),
    "openai-gpt": OpenAIGPTConfig(
        vocab_size=320, n_positions=128, n_embd=32, n_layer=4, n_head=4, initializer_range=0.2
    ),
    "mpt": MptConfig(vocab_size=320, d_model=32, n_layers=4, n_heads=4, max_seq_len=128),
}
MAMBA = MambaConfig(
    vocab_size=320, hidden_size=32, state_size=8, num_hidden_layers=4, initializer_range=0.2
)
MIXTURE = Qwen2MoeConfig(
    **SIZES,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    shared_expert_intermediate_size=32,
)
HYBRID = {
    "lfm2": Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"] * 2),
    "falcon_h1": FalconH1Config(
        **GROUPED, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8
    ),
}
fuses = pytest.mark.skipif(transformers.__version__ < "5", reason="4 fuses nothing")
ALL = {**EAGER, "mamba": MAMBA, "qwen2_moe": MIXTURE}
FUSED = "transformers makes it of others as it loads them, as for most mixtures of experts"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with one random model per architecture, saved by transformers."""
    folder = tmp_path_factory.mktemp("architectures")
    for name, config in ALL.items():
        torch.manual_seed(5)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return folder


def blocks_and_last(folder):
    """The outputs of blocks 1 to 4 and the last states, of transformers' own fp32 model."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        states = model(tokens(), output_hidden_states=True).hidden_states
    # Mamba's begin with the first block's, the others' with the embeddings
    blocks = states[:-1] if model.config.model_type == "mamba" else states[1:-1]
    return blocks, states[-1]


@pytest.mark.parametrize("name", [*EAGER, "mamba"])
def test_attention_costs_two_products_with_each_token_of_a_row_where_there_is_any(name, folders):
    model = load(folders / name, ["last"]).model
    blocks, width = 4, 32
    products = 0 if name == "mamba" else 4 * blocks * width
    assert flops_per_token(model, 128) - flops_per_token(model, 64) == 64 * products


@pytest.mark.parametrize("name", [*EAGER, "mamba"])
def test_states_are_transformers_own(name, folders):
    teacher = load(folders / name, ["last", 1, "middle", 3])
    blocks, last = blocks_and_last(folders / name)
    assert is_eager(teacher.model)
    wanted = (last, blocks[0], blocks[1], blocks[2])
    for found, each in zip(teacher(tokens()), wanted, strict=True):
        assert relative_error(found, each) < 1e-5
    cut = load(folders / name, [2])
    assert cut.description.n_blocks == 2
    assert relative_error(cut(tokens())[0], blocks[1]) < 1e-5


@pytest.mark.parametrize("name", [*EAGER, "mamba"])
def test_states_are_of_the_teachers_dtype(name, folders):
    """Mamba gives fp32, whatever its weights are."""
    for states in load(folders / name, ["last", 2], torch.bfloat16)(tokens()):
        assert states.dtype == torch.bfloat16


def test_buffers_of_the_checkpoint_are_read(tmp_path):
    """Apertus has constants of its activation in buffers; what a checkpoint says counts."""
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(ApertusConfig(**GROUPED))
    computed = model.model(tokens()).last_hidden_state
    for name, buffer in model.named_buffers():
        if name.endswith("act_fn.beta"):
            buffer.fill_(2)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = model.model(tokens()).last_hidden_state
    assert relative_error(computed, wanted) > 1e-3
    assert relative_error(load(tmp_path, ["last"])(tokens())[0], wanted) < 1e-5


def sharded(folders):
    mesh = init_device_mesh("cpu", (2,))
    options = {"mesh": mesh, "placement": "shard"}
    return {name: load(folders / name, ["last", 2], **options)(tokens()) for name in EAGER}


def test_sharded_over_two_ranks(folders, tmp_path):
    for name, found in run_world(2, sharded, tmp_path, folders).items():
        blocks, last = blocks_and_last(folders / name)
        for states, wanted in zip(found, (last, blocks[1]), strict=True):
            assert relative_error(states, wanted) < 1e-5, name


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_a_run_learns_from_them_and_preflight_prices_them(name, folders, lab):
    changes = {"teacher__checkpoint": str(folders / name), "training__steps": 2}
    trainer = LetTrainer(lab.config({"s_stop": 1}, **changes))
    trainer.train()
    assert trainer.step == 2
    trainer.close()
    with outside_the_world():
        report = examine(lab.parsed({"s_stop": 1}, **changes), 2, A100)
    assert report.findings.mistakes == []
    assert report.price["teacher"]["architecture"].lower() == f"{name}model"


def told(lab, folder, **changes):
    """The one mistake that a run's checks and preflight tell of a teacher."""
    config = lab.parsed({}, teacher__checkpoint=str(folder), **changes)
    (first,) = [str(m) for m in find_mistakes(config, elsewhere=True)]
    with outside_the_world():
        assert examine(config, 1, A100).findings.mistakes == [first]
    return first


@fuses
def test_a_mixture_of_experts_is_refused_before_it_is_loaded(folders, lab):
    with pytest.raises(ConfigError, match=FUSED):
        load(folders / "qwen2_moe")
    sentence = told(lab, folders / "qwen2_moe")
    assert "weight 'model.layers.0.mlp.experts.gate_up_proj' is not in" in sentence
    assert FUSED in sentence and sentence.endswith("choose a dense teacher.")


@fuses
def test_a_mixture_that_is_stored_as_it_is_used_can_teach(folders, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folders / "qwen2_moe").eval()
    model.save_pretrained(tmp_path, save_original_format=False)
    check_part(str(tmp_path), ["last"])
    with torch.no_grad():
        wanted = model.model(tokens()).last_hidden_state
    assert relative_error(load(tmp_path, ["last"])(tokens())[0], wanted) < 1e-5


def test_weights_that_do_not_belong_to_the_config_are_told_at_check_time(lab, tmp_path):
    shutil.copytree(lab.assets / "teacher", tmp_path / "teacher")
    file = tmp_path / "teacher" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "intermediate_size": 128}))
    assert "its config.json and weights do not belong" in told(lab, tmp_path / "teacher")


def test_what_cannot_be_built_is_refused_in_one_sentence(lab, tmp_path):
    config = OPTConfig(**SIZES, hidden_size=32, num_attention_heads=5, word_embed_proj_dim=32)
    config.architectures = ["OPTForCausalLM"]
    config.save_pretrained(tmp_path / "odd")
    shutil.copy(lab.assets / "teacher" / "model.safetensors", tmp_path / "odd")
    sentence = told(lab, tmp_path / "odd")
    assert f"cannot be a teacher under transformers {transformers.__version__} (" in sentence
    assert "ValueError: embed_dim must be divisible" in sentence and "\n" not in sentence


@pytest.mark.parametrize("name", ["gpt_neo", "mamba"])
def test_documents_need_a_teacher_that_keeps_them_apart(name, folders, lab):
    sentence = told(lab, folders / name, data__document_attention=True)
    assert f"cannot be used with a {name} teacher" in sentence


@pytest.mark.parametrize("name", ["lfm2", "falcon_h1"])
def test_documents_need_a_teacher_of_attention_alone(name, tmp_path, monkeypatch):
    """A convolution or a state goes from one document into the next, whatever the mask."""
    AutoModelForCausalLM.from_config(HYBRID[name]).save_pretrained(tmp_path)
    check_part(str(tmp_path), ["last", 2])
    last, second = load(tmp_path, ["last", 2])(tokens())
    blocks, wanted = blocks_and_last(tmp_path)
    assert relative_error(last, wanted) < 1e-5 and relative_error(second, blocks[1]) < 1e-5
    with pytest.raises(ConfigError, match=f"a {name} teacher, whose recurrent or convolutional"):
        check_part(str(tmp_path), ["last"], documents=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    # Under transformers 4 most configs do not say it.
    monkeypatch.setattr("let_titan.teacher.attention.layer_types", lambda config: set())
    assert mixes_without_attention(model)


def test_blocks_of_opt_350m_can_teach_and_its_projected_states_cannot(tmp_path):
    config = OPTConfig(**SIZES, hidden_size=32, num_hidden_layers=4, num_attention_heads=4)
    config.word_embed_proj_dim, config.do_layer_norm_before = 16, False
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    check_part(str(tmp_path), [2])
    (second,) = load(tmp_path, [2])(tokens())
    assert relative_error(second, blocks_and_last(tmp_path)[0][1]) < 1e-5
    with pytest.raises(ConfigError, match="last states of width 16, projected from 32 without"):
        check_part(str(tmp_path), ["last"])
