"""[model]: the student by name, its converters, its tokenizer."""

import torch
from torch import nn
from torchtitan.models.llama3.model.model import TransformerBlock

from let_titan.checks.mistakes import Mistakes, raised_by
from let_titan.config import LetJobConfig
from let_titan.errors import ConfigError, NotFoundHere
from let_titan.student.flavors import FLAVORS
from let_titan.tokenizer.build import has_tokenizer, load_tokenizer
from let_titan.tokenizer.encoder import cut_mistakes
from let_titan.tokenizer.tiktoken_files import is_tiktoken
from let_titan.upstream import converter_names

MODEL_NAME = "let_llama"


def flavor_mistakes(config: LetJobConfig) -> Mistakes:
    if config.model.flavor not in FLAVORS:
        yield ConfigError(
            f"model.flavor = {config.model.flavor!r} is unknown: choose one of "
            f"{', '.join(FLAVORS)}."
        )


def model_mistakes(config: LetJobConfig) -> Mistakes:
    if config.model.name != MODEL_NAME:
        yield ConfigError(
            f"model.name = {config.model.name!r} is not trained here: write {MODEL_NAME!r}."
        )
    for converter in config.model.converters:
        if converter not in converter_names():
            yield ConfigError(
                f"model.converters has {converter!r}: choose from {', '.join(converter_names())}."
            )
    yield from padding_mistakes(config)


def padding_mistakes(config: LetJobConfig) -> Mistakes:
    """torchtitan reads and writes safetensors without a padded vocabulary."""
    multiple, checkpoint = config.model.pad_vocab_to_multiple_of, config.checkpoint
    for key in ("initial_load_in_hf", "last_save_in_hf"):
        if multiple > 1 and checkpoint.enable and getattr(checkpoint, key):
            yield ConfigError(
                f"model.pad_vocab_to_multiple_of = {multiple} cannot be used with checkpoint.{key}"
                " = true, which knows no padding: leave one of them out (python -m "
                "let_titan.export cuts it off)."
            )


def recompute_mistakes(config: LetJobConfig) -> Mistakes:
    """Per-op checkpointing finds linear layers by parts of names, which may match nothing else."""
    ac = config.activation_checkpoint
    if ac.mode != "selective" or ac.selective_ac_option != "op":
        return
    args = FLAVORS[config.model.flavor]
    with torch.device("meta"):
        block = TransformerBlock(0, args)
    others = {
        f"layers.{i}.{name}": type(module).__name__
        for i in range(args.n_layers)
        for name, module in block.named_modules()
        if not isinstance(module, nn.Linear)
    }
    for part in ac.per_op_sac_force_recompute_mm_shapes_by_fqns:
        path = next((path for path in others if part in path), None)
        if path is not None:
            yield ConfigError(
                "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns has "
                f"{part!r}, which is a part of {path!r}, no linear layer but {others[path]}: "
                'write names of linear layers, such as "feed_forward.w1".'
            )


def tokenizer_mistakes(config: LetJobConfig) -> Mistakes:
    folder = config.model.hf_assets_path
    if is_tiktoken(folder):
        yield from raised_by(load_tokenizer, folder)
        return
    if not has_tokenizer(folder):
        yield NotFoundHere(
            f"model.hf_assets_path = {folder!r} holds no tokenizer.json: give the folder of "
            "the teacher's tokenizer, for instance from the hub (hf download TEACHER --local-dir "
            "FOLDER); scripts/fetch_teacher.py makes the demo's."
        )
        return
    try:
        tokenizer = load_tokenizer(folder).tokenizer
    except ConfigError as error:
        yield ConfigError(f"model.hf_assets_path = {error}")
        return
    yield from cut_mistakes(tokenizer, folder)
