"""Reads the teacher's tokenizer, to compare it with the student's or to use it beside it."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import cached_file

from let_titan.errors import ConfigError
from let_titan.teacher import hub
from let_titan.teacher.gguf_file import tokenizer_of_gguf
from let_titan.tokenizer.encoder import Encoder, encoder_of_tokenizer, leave_whole
from let_titan.tokenizer.lean import hugging_face_tokenizer
from let_titan.tokenizer.match import Reading


def read_tokenizer(
    checkpoint: str, trust_remote_code: bool = False, revision: str = ""
) -> Reading | None:
    """Reads the tokenizer that a teacher brings; None where it brings none.

    A tokenizer.json is read as the student's is, since transformers rebuilds some tokenizers by
    their class and not by the file; a GGUF file and older formats are left to transformers.

    Args:
        checkpoint: hub id, local folder or ``.gguf`` file.
        trust_remote_code: allow the checkpoint's own code.
        revision: branch, tag or commit of a hub id; "": its main branch.

    Raises:
        ConfigError: its tokenizer.json is torn.
    """
    path = Path(checkpoint).expanduser()
    where: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision or None}
    if not path.exists():
        where["local_files_only"] = not hub.answers()
    try:
        if path.is_file():
            return reading_of(tokenizer_of_gguf(path))
        folder = (
            path
            if path.is_dir()
            else folder_on_hub(checkpoint, where["local_files_only"], where["revision"])
        )
        if folder is not None and (folder / "tokenizer.json").exists():
            read = hugging_face_tokenizer(str(folder))
            return Reading(read.tokenizer, read.bos_id, read.eos_id)
        if path.is_dir() and not any(
            (path / n).exists() for n in ("vocab.json", "tokenizer.model")
        ):
            return None
        source = path if path.is_dir() else checkpoint
        return reading_of(AutoTokenizer.from_pretrained(source, **where))
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError):
        return None


def read_encoder(
    checkpoint: str, trust_remote_code: bool = False, revision: str = ""
) -> Encoder | None:
    """Reads a teacher's tokenizer as what the data path needs; None where it brings none."""
    found = read_tokenizer(checkpoint, trust_remote_code, revision)
    if found is None:
        return None
    leave_whole(found.tokenizer)
    return encoder_of_tokenizer(found.tokenizer, found.bos_id, found.eos_id)


def reading_of(read: Any) -> Reading | None:
    """Returns what a tokenizer of transformers reads by; None where that is not in its backend."""
    tokenizer = getattr(read, "backend_tokenizer", None)
    return None if tokenizer is None else Reading(tokenizer, read.bos_token_id, read.eos_token_id)


def folder_on_hub(checkpoint: str, local_files_only: bool, revision: str | None) -> Path | None:
    """Returns the cached folder of a hub id with its tokenizer.json, None where it has none."""
    found = None
    for name in ("tokenizer_config.json", "tokenizer.json"):
        found = cached_file(
            checkpoint,
            name,
            local_files_only=local_files_only,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
        )
    return None if found is None else Path(found).parent
