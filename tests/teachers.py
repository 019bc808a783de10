"""Tiny teachers of each architecture, and the states of the untouched Hugging Face model."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
)

from let_titan.teacher import load_teacher

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

GROUPED = {
    **SIZES,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
}
WINDOWED = {  # in all blocks, and in all but the second
    "mistral": MistralConfig(**GROUPED, sliding_window=5),
    "gemma3_text": Gemma3TextConfig(
        **GROUPED,
        sliding_window=5,
        layer_types=[f"{'full' if n == 1 else 'sliding'}_attention" for n in range(4)],
    ),
}


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
