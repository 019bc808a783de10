"""The tokenizer as the run used it, in files that any Hugging Face version reads."""

import json
from pathlib import Path
from typing import Any

from let_titan.errors import ConfigError
from let_titan.export.source import Source
from let_titan.tokenizer.build import (
    RunTokenizer,
    embedding_size,
    fingerprint,
    has_tokenizer,
    load_tokenizer,
)

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def tokenizer_of(source: Source, folder: str | None, rows: int) -> RunTokenizer:
    """Reads the run's tokenizer.

    Args:
        source: the checkpoint and its run.
        folder: where the tokenizer is now; None: where the run found it.
        rows: of the checkpoint's embedding, the vocabulary's padding included.

    Raises:
        ConfigError: it is gone, or another one.
    """
    folder = folder or source.summary["tokenizer"]["path"]
    if not has_tokenizer(folder):
        raise ConfigError(
            f"The run's tokenizer is not in {folder!r}: name its folder with --tokenizer."
        )
    tokenizer = load_tokenizer(folder)
    known = source.summary["tokenizer"].get("sha256")
    ids = embedding_size(tokenizer)
    if known not in (None, fingerprint(tokenizer)) or source.model_args(ids).vocab_size != rows:
        raise ConfigError(
            f"The tokenizer in {folder!r} ({ids} ids) is not the one of the run, whose embedding "
            f"has {rows} rows: name the folder of that one with --tokenizer."
        )
    return tokenizer


def write_tokenizer(tokenizer: RunTokenizer, out: Path, seq_len: int) -> None:
    """Writes tokenizer.json and tokenizer_config.json.

    They are no copies of the run's files: torchtitan adds special tokens from tokenizer_config.json
    and reads vocab.json by rules of its own, and the model knows the result. The class is named so
    that no version of transformers builds its own Llama or GPT-2 tokenizer.
    A chat template is left out: the student has read no chat.
    """
    tokenizer.tokenizer.save(str(out / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": seq_len,
        "clean_up_tokenization_spaces": False,
        **special_tokens(tokenizer),
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def special_tokens(tokenizer: RunTokenizer) -> dict[str, Any]:
    """Returns the special tokens by their role, as the run's tokenizer_config.json has them.

    Their settings (where they strip, whether they are normalised) must stay, so that torchtitan
    reads the same tokenizer from the export.
    """
    config = tokenizer.config or {}
    found = {key: config[key] for key in SPECIAL if config.get(key) is not None}
    return {
        key: {"__type": "AddedToken", **token} if isinstance(token, dict) else token
        for key, token in found.items()
    }
