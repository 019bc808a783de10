"""python -m let_titan.export.from_hf MODEL OUT

Writes a Hugging Face Llama as a checkpoint for a run to start from, with
--checkpoint.initial_load_path OUT. MODEL is a folder with config.json and *.safetensors.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torchtitan.models.llama3.model.state_dict_adapter import Llama3StateDictAdapter
from transformers import AutoConfig, LlamaConfig

from let_titan.checkpoint.checksums import ChecksumWriter
from let_titan.checks.imported import import_users
from let_titan.disk import write_whole
from let_titan.errors import ConfigError, exit_code, writing
from let_titan.export.folder import check_free
from let_titan.export.shape import config_json, parameter_shapes
from let_titan.export.weights import on_one_process
from let_titan.student import FLAVORS, LetModelArgs

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

SILU = ("silu", "swish")
"""transformers' two names of what the student computes between its feed-forward matrices."""

SHAPE = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
)


def import_llama(model: Path, out: Path) -> dict[str, str | float]:
    """Writes ``model`` as a model-only DCP checkpoint with checksums, in its own dtype.

    A tied embedding becomes two: the student's is untied, with the same logits at the start.

    Args:
        model: folder with config.json and *.safetensors.
        out: must not exist, or be empty.

    Returns:
        [model]'s keys to train on with: flavor and rope_theta.

    Raises:
        ConfigError: no Llama is there, none of a flavor's shape, or tensors are missing, or there
            are others.
        RunError: the checkpoint cannot be written.
    """
    check_free(out)
    config = read_llama(model)
    flavor, args = matching_flavor(config, model)
    adapter = Llama3StateDictAdapter(args, hf_assets_path=None)
    tensors = with_head(read_tensors(model), config, model)
    check_names(tensors, set(adapter.to_hf(parameter_shapes(args))), model)
    state = adapter.from_hf(tensors)
    check_state(state, args, model)
    with writing(out), on_one_process():
        write_whole(
            out,
            lambda folder: dcp.save(
                state, storage_writer=ChecksumWriter(str(folder)), no_dist=True
            ),
        )
    return {"flavor": flavor, "rope_theta": args.rope_theta}


def read_llama(model: Path) -> LlamaConfig:
    """Reads config.json; raises ConfigError where it is no Llama's."""
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ConfigError(
            f"{str(model)!r} has no config.json that can be read "
            f"({str(error).strip().splitlines()[0]}): give the folder of a Hugging Face model."
        ) from error
    if not isinstance(config, LlamaConfig) or config.attention_bias or config.mlp_bias:
        raise ConfigError(
            f"{str(model)!r} is a {config.model_type} that the student cannot compute: give a "
            "Llama without biases."
        )
    if config.hidden_act not in SILU:
        raise ConfigError(
            f"{str(model)!r} has the hidden_act {config.hidden_act!r} that the student cannot "
            "compute: give a Llama with 'silu'."
        )
    return config


def matching_flavor(config: LlamaConfig, model: Path) -> tuple[str, LetModelArgs]:
    """Returns the flavor that computes what ``config`` says, by shape, epsilon and RoPE.

    RoPE's theta is no flavor's: it is in the arguments as ``config`` has it.
    """
    for name in FLAVORS:
        args = FLAVORS[name]
        args.rope_theta = rope_of(config)["rope_theta"]
        args.vocab_size, args.max_seq_len = config.vocab_size, config.max_position_embeddings
        if described(LlamaConfig.from_dict(config_json(args, torch.float32))) == described(config):
            return name, args
    wanted = ", ".join(f"{name} {value}" for name, value in described(config).items())
    raise ConfigError(
        f"No flavor computes what {str(model)!r} does ({wanted}): add one to FLAVORS in a module "
        "that --custom-import names (docs/extend.md)."
    )


def described(config: LlamaConfig) -> dict[str, object]:
    """Returns what must agree."""
    return {name: getattr(config, name) for name in SHAPE} | {
        "RoPE": {key: value for key, value in rope_of(config).items() if value != "default"}
    }


def rope_of(config: LlamaConfig) -> dict[str, Any]:
    """Returns RoPE's settings, which transformers 4 keeps under two other names."""
    rope = getattr(config, "rope_parameters", None)
    if rope is None:
        rope = {"rope_theta": config.rope_theta, **(config.rope_scaling or {})}
    return rope


def read_tensors(model: Path) -> dict[str, torch.Tensor]:
    """Returns all tensors by Hugging Face's names, but RoPE's tables, which old files hold."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(model.glob("*.safetensors")):
        try:
            found = load_file(file)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{str(file)!r} is damaged ({error}): copy it anew.") from error
        if twice := sorted(tensors.keys() & found.keys()):
            raise ConfigError(
                f"{twice[0]} stands in {file.name} and in another file of {str(model)!r}: leave "
                "only the *.safetensors there that belong together."
            )
        tensors |= found
    return {name: value for name, value in tensors.items() if "rotary_emb" not in name}


def with_head(
    tensors: dict[str, torch.Tensor], config: LlamaConfig, model: Path
) -> dict[str, torch.Tensor]:
    """Returns the tensors with a head, which is the embedding where ``config`` ties the two.

    A tied model that brings a head all the same keeps it, as transformers 5 does where the two
    differ.

    Raises:
        ConfigError: there is no head, and nothing says that it is the embedding: transformers
            would take a random one.
    """
    if HEAD in tensors or EMBEDDING not in tensors:
        return tensors
    if not config.tie_word_embeddings:
        raise ConfigError(
            f"The weights in {str(model)!r} lack {HEAD}, and config.json does not tie it to the "
            "embedding: copy all *.safetensors of the model anew, or, if its head is the embedding,"
            " set tie_word_embeddings to true."
        )
    return {**tensors, HEAD: tensors[EMBEDDING]}


def check_names(tensors: dict[str, torch.Tensor], known: set[str], model: Path) -> None:
    """Checks that no tensor is left over: the model would compute something with it."""
    others = sorted(tensors.keys() - known)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise ConfigError(
            f"The weights in {str(model)!r} have {others[0]}{more}, which the student has no place "
            "for: give a plain Llama, whose config.json and *.safetensors belong together."
        )


def check_state(state: dict[str, torch.Tensor], args: LetModelArgs, model: Path) -> None:
    """Checks that the tensors are the student's, all of them."""
    for name, wanted in parameter_shapes(args).items():
        found = None if name not in state else list(state[name].shape)
        if found != list(wanted.shape):
            raise ConfigError(
                f"The weights in {str(model)!r} have {found} for {name}, which must be "
                f"{list(wanted.shape)}: copy all *.safetensors of the model anew."
            )


def main(args: list[str] | None = None) -> int:
    """Imports; returns 0, or after a sentence on stderr 2 (the input) or 1 (the disk)."""
    parser = argparse.ArgumentParser(
        prog="let_titan.export.from_hf",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="folder of a Hugging Face Llama")
    parser.add_argument("out", type=Path, help="folder to write; must not exist yet")
    parser.add_argument(
        "--custom-import",
        metavar="MODULE",
        help="that adds a flavor, as experimental.custom_import",
    )
    options = parser.parse_args(args)

    def run() -> None:
        if options.custom_import:
            import_users(options.custom_import, "--custom-import")
        keys = import_llama(options.model, options.out)
        print(
            f'Start from it with model.flavor = "{keys["flavor"]}", '
            f"model.rope_theta = {keys['rope_theta']} and "
            f"--checkpoint.initial_load_path {options.out}"
        )

    return exit_code("let_titan.export.from_hf", run)


if __name__ == "__main__":
    sys.exit(main())
