"""The student's arguments as Hugging Face's LlamaConfig."""

from typing import Any

import torch
from transformers import LlamaConfig

from let_titan.student import LetModelArgs, LetTransformer


def parameter_shapes(args: LetModelArgs) -> dict[str, torch.Tensor]:
    """Returns the student's parameters by name, without storage (on meta)."""
    with torch.device("meta"):
        return LetTransformer(args).state_dict()


def config_json(args: LetModelArgs, dtype: torch.dtype) -> dict[str, Any]:
    """Returns the config.json of the Hugging Face model that computes what the student does.

    RoPE's settings and the dtype stand there under the names of transformers 4, too, which does
    not read those of transformers 5.
    """
    rope = {"rope_theta": float(args.rope_theta), "rope_scaling": rope_scaling(args)}
    name = str(dtype).removeprefix("torch.")
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=args.vocab_size if args.vocabulary is None else args.vocabulary,
        hidden_size=args.dim,
        intermediate_size=parameter_shapes(args)["layers.0.feed_forward.w1.weight"].shape[0],
        num_hidden_layers=args.n_layers,
        num_attention_heads=args.n_heads,
        num_key_value_heads=args.n_kv_heads or args.n_heads,
        max_position_embeddings=args.max_seq_len,
        rms_norm_eps=args.norm_eps,
        tie_word_embeddings=False,
        **rope,  # type: ignore[arg-type]
    )
    return config.to_dict() | rope | {"dtype": name, "torch_dtype": name}


def rope_scaling(args: LetModelArgs) -> dict[str, Any] | None:
    """Returns RoPE's scaling in Hugging Face's terms; None where nothing is scaled."""
    scaling = args.rope_scaling_args
    if scaling.scaling_factor == 1.0:
        return None
    return {
        "rope_type": "llama3",
        "factor": scaling.scaling_factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_position_embeddings,
    }
