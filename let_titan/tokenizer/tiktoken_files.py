"""tiktoken's tokenizers: a ``*.tiktoken`` file, Llama 3's ``tokenizer.model``, or a known name.

A file of ranks says neither where text is split nor which ids are special. OpenAI's files are known
by their names, and tiktoken itself has the rest; ``tokenizer.model`` is read as Llama 3.1's
(3.2's and 3.3's, too). Nothing is downloaded: a name is looked for in TIKTOKEN_CACHE_DIR, where
tiktoken keeps a file under the sha1 of its address. Imports neither torch nor torchtitan.
"""

import functools
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import tiktoken
import tiktoken_ext.openai_public as openai
from tiktoken.load import load_tiktoken_bpe

from let_titan.errors import ConfigError, NotFoundHere

RANKS = {"r50k_base": 50256, "p50k_base": 50280, "cl100k_base": 100256, "o200k_base": 199998}
"""Lines of each file of OpenAI's."""

NAMES = {"gpt2": "r50k_base", **{name: name for name in RANKS}}
"""What ``model.hf_assets_path`` may say instead of a path; GPT-2's ranks are r50k_base's."""

LLAMA_3 = "tokenizer.model"
LLAMA_3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_3_NAMED = {
    0: "begin_of_text",
    1: "end_of_text",
    4: "finetune_right_pad_id",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
    10: "python_tag",
}
LLAMA_3_RANKS, LLAMA_3_SPECIAL = 128_000, 256


@dataclass(frozen=True)
class Ranks:
    """All that decides which ids a text has.

    Attributes:
        name: one of ``RANKS``, or "llama3".
        pattern: the regular expression that splits text before BPE, as tiktoken runs it.
        ranks: {bytes: id}; a lower one is merged first.
        special: {token: id}; text never becomes one of them.
        bos, eos: the special tokens around a document; None where there is none.
    """

    name: str
    pattern: str
    ranks: dict[bytes, int]
    special: dict[str, int]
    bos: str | None
    eos: str

    @functools.cached_property
    def encoding(self) -> tiktoken.Encoding:
        return tiktoken.Encoding(
            self.name,
            pat_str=self.pattern,
            mergeable_ranks=self.ranks,
            special_tokens=self.special,
        )

    @property
    def bos_id(self) -> int | None:
        return None if self.bos is None else self.special[self.bos]

    @property
    def eos_id(self) -> int:
        return self.special[self.eos]

    @property
    def vocab_size(self) -> int:
        """Rows that the embedding needs: the largest id + 1, unused ids between included."""
        return 1 + max(*self.ranks.values(), *self.special.values())

    def fingerprint(self) -> str:
        """Returns a sha256 over everything above."""
        digest = hashlib.sha256()
        for token, rank in sorted(self.ranks.items(), key=lambda item: item[1]):
            digest.update(b"%d %s\n" % (rank, token.hex().encode()))
        rest = (self.pattern, sorted(self.special.items()), self.bos, self.eos)
        digest.update(repr(rest).encode())
        return digest.hexdigest()


def is_tiktoken(path: str) -> bool:
    """Whether ``model.hf_assets_path`` means one of tiktoken's, found here or not."""
    is_file = path.endswith(".tiktoken") or Path(path).name == LLAMA_3
    return (is_file or path in NAMES) and not Path(path).is_dir()


def find_ranks(path: str) -> Path:
    """Returns the file that is meant.

    Raises:
        NotFoundHere: it is not on this machine.
    """
    if path not in NAMES:
        if not Path(path).is_file():
            raise NotFoundHere(
                f"model.hf_assets_path = {path!r} is no file: give a *.tiktoken file, Llama 3's "
                "tokenizer.model, or the folder of a Hugging Face tokenizer."
            )
        return Path(path)
    name = hashlib.sha1(address(NAMES[path]).encode()).hexdigest()
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder or not (Path(folder) / name).is_file():
        raise NotFoundHere(
            f"model.hf_assets_path = {path!r} is a tiktoken name, whose file is not here, and "
            f"nothing is downloaded: put {NAMES[path]}.tiktoken into $TIKTOKEN_CACHE_DIR "
            f"({folder!r}) as {name}, or give the file's own path."
        )
    return Path(folder) / name


@functools.lru_cache(maxsize=4)
def read_ranks(path: str) -> Ranks:
    """Reads one of tiktoken's tokenizers by path or name.

    Raises:
        NotFoundHere: it is not on this machine.
        ConfigError: the file is damaged, or not one whose split pattern is known.
    """
    file = find_ranks(path)
    name = NAMES.get(path, file.name.removesuffix(".tiktoken"))
    try:
        ranks = load_tiktoken_bpe(str(file))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.hf_assets_path = {path!r} cannot be read as tiktoken's ranks ({error}): copy "
            "the file anew (a SentencePiece tokenizer.model needs its Hugging Face folder)."
        ) from error
    missing = {bytes([value]) for value in range(256)} - ranks.keys()
    if missing or len(set(ranks.values())) < len(ranks):
        raise ConfigError(
            f"model.hf_assets_path = {path!r} lacks {len(missing)} of the 256 bytes, or has a rank "
            "twice: copy the file anew."
        )
    if file.name == LLAMA_3:
        return llama_3(ranks, path)
    if name not in RANKS or len(ranks) != RANKS[name]:
        raise ConfigError(
            f"model.hf_assets_path = {path!r} has {len(ranks):,} ranks and does not say where text "
            f"is split: name it {', '.join(f'{n}.tiktoken ({c:,})' for n, c in RANKS.items())} or, "
            "for Llama 3, tokenizer.model; give a Hugging Face folder for any other."
        )
    known = known_by_tiktoken(name, lambda *_, **__: ranks)
    return Ranks(name, known["pat_str"], ranks, known["special_tokens"], None, openai.ENDOFTEXT)


def llama_3(ranks: dict[bytes, int], path: str) -> Ranks:
    """Returns Llama 3.1's tokenizer: its special ids follow the ranks.

    Raises:
        ConfigError: another model's file of that name, whose split pattern is not Llama 3's.
    """
    if len(ranks) != LLAMA_3_RANKS:
        raise ConfigError(
            f"model.hf_assets_path = {path!r} has {len(ranks):,} ranks, and Llama 3's "
            f"tokenizer.model has {LLAMA_3_RANKS:,}: give that tokenizer's Hugging Face folder."
        )
    reserved = iter(range(LLAMA_3_SPECIAL))
    names = [
        LLAMA_3_NAMED.get(i) or f"reserved_special_token_{next(reserved)}"
        for i in range(LLAMA_3_SPECIAL)
    ]
    special = {f"<|{name}|>": len(ranks) + i for i, name in enumerate(names)}
    return Ranks("llama3", LLAMA_3_PATTERN, ranks, special, "<|begin_of_text|>", "<|end_of_text|>")


def known_by_tiktoken(name: str, load: Callable[..., Any]) -> dict[str, Any]:
    """Returns tiktoken's own arguments for an encoding; ``load`` stands in for its download."""
    with mock.patch.object(openai, "load_tiktoken_bpe", load):
        return openai.ENCODING_CONSTRUCTORS[name]()


def address(name: str) -> str:
    """Returns the address from which tiktoken would download a file of ranks."""
    return known_by_tiktoken(name, lambda url, **_: url)["mergeable_ranks"]
