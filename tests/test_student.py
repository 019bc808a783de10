"""The student: sizes, initial weights, and Llama's function without RoPE scaling."""

from dataclasses import replace

import pytest
import torch
from torchtitan.models.llama3 import Transformer, llama3_args
from torchtitan.models.llama3.model.state_dict_adapter import Llama3StateDictAdapter
from transformers import LlamaConfig, LlamaForCausalLM

from let_titan.student import FLAVORS, LetTransformer


def build(flavor, vocab_size, cls=LetTransformer, device="meta", **changes):
    args = FLAVORS[flavor]
    args.vocab_size, args.max_seq_len = vocab_size, 64
    for name, value in changes.items():
        setattr(args, name, value)
    with torch.device(device):
        return cls(args)


def initialise(model, seed=0):
    torch.manual_seed(seed)
    with torch.no_grad():
        model.init_weights()
    return model


def count(dim, n_layers, kv_share, ffn, vocab_size):
    """Parameters of an untied Llama, by hand."""
    attention = dim * dim * (2 + 2 * kv_share)
    return n_layers * int(attention + 3 * dim * ffn + 2 * dim) + 2 * vocab_size * dim + dim


@pytest.mark.parametrize("vocab_size", [32_000, 49_152, 50_277, 128_256])
@pytest.mark.parametrize(
    ("flavor", "shape"),
    [
        ("demo", (256, 6, 1, 768)),
        ("bench", (384, 8, 1, 1024)),
        ("124M", (640, 12, 1, 1792)),
        ("350M", (1024, 24, 1, 2816)),
        ("1.4B", (2048, 24, 1, 5632)),
        ("1.4B_gqa", (2048, 24, 0.25, 5632)),
        ("3B", (2560, 32, 1, 6912)),
        ("7B", (4096, 32, 1, 11008)),
        ("8B", (4096, 32, 0.25, 14336)),
        ("70B", (8192, 80, 0.125, 28672)),
        ("405B", (16384, 126, 0.0625, 53248)),
    ],
)
def test_parameters_are_exact(flavor, shape, vocab_size):
    model = build(flavor, vocab_size)
    assert sum(p.numel() for p in model.parameters()) == count(*shape, vocab_size)


@pytest.mark.parametrize(
    ("vocab_size", "billions"), [(32_000, 6.74), (49_152, 6.88), (128_256, 7.53)]
)
def test_7b_has_llamas_size(vocab_size, billions):
    total = sum(p.numel() for p in build("7B", vocab_size).parameters())
    assert round(total / 1e9, 2) == billions
    assert vocab_size != 32_000 or total == 6_738_415_616


@pytest.mark.parametrize("flavor", ["8B", "70B", "405B"])
def test_llama_3s_shapes_are_torchtitans(flavor):
    theirs = replace(llama3_args[flavor], vocab_size=128_256)
    with torch.device("meta"):
        twin = Transformer(theirs)
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (build(flavor, 128_256), twin)]
    assert shapes[0] == shapes[1]
    if flavor == "8B":  # as Meta counts it
        assert sum(p.numel() for p in twin.parameters()) == 8_030_261_248


def test_the_demos_blocks_hold_four_to_six_million():
    blocks = build("demo", 49_152).layers
    assert 4e6 < sum(p.numel() for p in blocks.parameters()) < 6e6


def test_torchtitans_scheme_is_torchtitans_bit_for_bit():
    classes = (LetTransformer, Transformer)
    models = [initialise(build("debug", 320, cls, device="cpu")) for cls in classes]
    for p, q in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(p, q)
    assert models[0].tok_embeddings.weight.std().item() == pytest.approx(1, rel=0.02)


def test_our_head_draws_no_random_number():
    """A model that is built on a device draws as it is built, and goes on drawing."""
    states = []
    for cls in (LetTransformer, Transformer):
        torch.manual_seed(0)
        build("debug", 320, cls, device="cpu")
        states.append(torch.random.get_rng_state())
    assert torch.equal(*states)


def test_the_llama_scheme():
    model = initialise(build("debug", 320, device="cpu", init_scheme="llama"))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
        else:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


def test_logits_equal_hugging_faces_llama():
    model = initialise(build("debug", 320, device="cpu", n_kv_heads=2))
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        max_position_embeddings=64,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
    )
    twin = LlamaForCausalLM(config).eval()
    adapter = Llama3StateDictAdapter(model.model_args, hf_assets_path=None)
    twin.load_state_dict(adapter.to_hf(model.state_dict()))
    # Scaling would only change slow frequencies, which 64 tokens hardly turn
    frequencies = twin.model.rotary_emb.inv_freq
    assert torch.allclose(model.freqs_cis[1].angle(), frequencies, rtol=1e-5, atol=0)
    tokens = torch.randint(0, 320, (2, 64))
    with torch.no_grad():
        assert torch.allclose(model(tokens), twin(tokens).logits, atol=1e-5)


def test_flavors_hand_out_copies():
    FLAVORS["debug"].vocab_size = 1
    assert FLAVORS["debug"].vocab_size != 1
