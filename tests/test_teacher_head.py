"""The LM head that distillation reads: with the final states it gives transformers' own logits."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
)

from let_titan.checks import find_mistakes
from let_titan.errors import ConfigError
from let_titan.teacher import check_part, load_teacher, read_head
from let_titan.teacher.head import other_logits

SHAPE = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
WIDTHS = {**SHAPE, "hidden_size": 16, "intermediate_size": 32, "initializer_range": 0.2}
FLOAT32 = {"dtype": torch.float32, "device": torch.device("cpu"), "seq_len": 12}
PLAIN = {
    "opt": OPTConfig(hidden_size=16, word_embed_proj_dim=16, ffn_dim=32, init_std=0.2, **SHAPE),
    "gpt_neox": GPTNeoXConfig(**WIDTHS),
    "gpt2": GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40, initializer_range=0.2),
    "llama": LlamaConfig(**WIDTHS, tie_word_embeddings=False),
    "llama_tied": LlamaConfig(**WIDTHS, tie_word_embeddings=True),
    "granite": GraniteConfig(**WIDTHS, logits_scaling=1.0),
}
OTHERS = {
    "logit_scale = 0.0625": CohereConfig(**WIDTHS),
    "logits_scaling = 6.0": GraniteConfig(**WIDTHS, logits_scaling=6.0),
    "final_logit_softcapping = 30.0": Gemma2Config(**WIDTHS, num_key_value_heads=1, head_dim=8),
    "has 'lm_head.bias'": PhiConfig(**WIDTHS),
}


def saved(config, folder):
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", PLAIN)
def test_states_times_the_head_are_the_logits(family, tmp_path):
    whole = saved(PLAIN[family], tmp_path)
    check_part(str(tmp_path), ["last"], head=True)
    base = AutoModel.from_config(PLAIN[family])
    head = read_head(tmp_path, base, 33, torch.float32)
    tokens = torch.randint(0, 40, (2, 12))
    (states,) = load_teacher(tmp_path, ["last"], **FLOAT32)(tokens)
    with torch.no_grad():
        torch.testing.assert_close(states @ head.T, whole(tokens).logits[..., :33])
    half = read_head(tmp_path, base, 33, torch.bfloat16)
    assert half.dtype == torch.bfloat16 and torch.equal(half, head.bfloat16())
    with pytest.raises(ConfigError, match="no LM head of 41 x 16"):
        read_head(tmp_path, base, 41, torch.float32)


@pytest.mark.parametrize("what", OTHERS)
def test_logits_that_are_more_than_the_heads_are_refused(what, tmp_path):
    """They can teach by their states all the same."""
    saved(OTHERS[what], tmp_path)
    check_part(str(tmp_path), ["last"])
    with pytest.raises(ConfigError, match=what):
        check_part(str(tmp_path), ["last"], head=True)


class Scaled(LlamaConfig):
    """As MiniCPM3's: computed of others, the setting is in no dict."""

    logits_scaling = property(lambda self: 4.0)


def test_settings_of_other_logits_are_no_scale():
    assert other_logits(Scaled()) == ("logits_scaling", 4.0)
    capped = LlamaConfig(output_logit_soft_cap=30.0)
    assert other_logits(capped) == ("output_logit_soft_cap", 30.0)
    others = {"output_router_logits": True, "router_logit_cap": 8.0, "num_logits_to_keep": 256}
    assert other_logits(LlamaConfig(**others, attn_logit_softcapping=50.0)) is None


def test_an_untied_head_that_is_missing_is_not_the_embedding(tmp_path):
    saved(PLAIN["llama"], tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="has no LM head of 1 x 16"):
        check_part(str(tmp_path), ["last"], head=True)


def test_a_run_is_told_at_its_start_if_it_distills(lab, tmp_path):
    sizes = {**WIDTHS, "vocab_size": 320, "max_position_embeddings": 128}
    saved(CohereConfig(**sizes), tmp_path)
    at = {"teacher__checkpoint": str(tmp_path)}
    assert find_mistakes(lab.parsed({}, **at)) == []
    (told,) = find_mistakes(lab.parsed(None, **at, distill__method="rkd"))
    assert "does more for its logits than its LM head (logit_scale = 0.0625)" in str(told)
