"""A GGUF file's tokenizer, with the ends of text that the file names."""

from pathlib import Path
from typing import Any

from gguf import GGUFReader
from transformers import AutoTokenizer

SPECIAL = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding"}
"""transformers' names of special tokens, and GGUF's."""


def tokenizer_of_gguf(path: Path) -> Any:
    """Returns transformers' tokenizer of a GGUF file.

    Its special tokens are set by the ids in the file's header: transformers 5.17 gives SmolLM2's
    BOS for its EOS, and 5.24 does not.

    Raises:
        ValueError, KeyError, OSError: the file is none, or damaged.
    """
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    header = GGUFReader(path)
    for name, key in SPECIAL.items():
        field = header.get_field(f"tokenizer.ggml.{key}_token_id")
        if field is not None:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(int(field.contents())))
    return tokenizer
