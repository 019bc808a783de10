"""From texts to ids, without torch: what reads a corpus needs no more of a tokenizer.

The Hugging Face form and tiktoken's meet here. Text is text: a document that spells a special token
of tiktoken's gets the ids of its letters; a Hugging Face tokenizer finds its added tokens in text,
as everywhere else that it is used.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from let_titan.errors import ConfigError
from let_titan.tokenizer.lean import hugging_face_tokenizer
from let_titan.tokenizer.pieces import Pieces, pieces_of_hugging_face, pieces_of_ranks
from let_titan.tokenizer.tiktoken_files import Ranks, is_tiktoken, read_ranks

LONG_BLANK = re.compile(r"\s{100000}")
"""tiktoken 0.14's pattern engine dies of a million blanks in a row: such runs are cut."""

DocumentEncoder = Callable[[list[str]], list[np.ndarray]]


@dataclass(frozen=True)
class Encoder:
    """A tokenizer as the data path sees it.

    Attributes:
        encode: from texts to their ids, without BOS and EOS.
        bos_id, eos_id: None where there is none.
        vocab_size: rows of the embedding.
        fingerprint: sha256 over all that decides the ids.
        pieces: gives the bytes that each id stands for.
    """

    encode: Callable[[list[str]], list[list[int]]]
    bos_id: int | None
    eos_id: int | None
    vocab_size: int
    fingerprint: str
    pieces: Callable[[], Pieces]

    def documents(self, add_bos: bool, add_eos: bool) -> DocumentEncoder:
        """Returns a function from texts to their ids [n] int64, BOS and EOS as asked for.

        The tokenizer's own template is left aside, so that nothing else puts special ids in; a BOS
        or EOS that it has not got is not added.
        """
        before = [self.bos_id] if add_bos and self.bos_id is not None else []
        after = [self.eos_id] if add_eos and self.eos_id is not None else []

        def encode(texts: list[str]) -> list[np.ndarray]:
            return [np.array([*before, *ids, *after], dtype=np.int64) for ids in self.encode(texts)]

        return encode


def load_encoder(path: str, threads: int = 1, uncut: bool = False) -> Encoder:
    """Reads what ``model.hf_assets_path`` names, as the trainer reads it, but without torch.

    Args:
        path: a Hugging Face folder, or a file or name of tiktoken's.
        threads: tiktoken's; a Hugging Face tokenizer's are RAYON_NUM_THREADS.
        uncut: read it without the truncation and padding in its tokenizer.json, as the trainer
            reads a teacher's; else one that has them is refused, as the trainer refuses a
            student's.

    Raises:
        ConfigError: it is damaged, not on this machine, or would cut or fill documents.
    """
    if is_tiktoken(path):
        return encoder_of_ranks(read_ranks(path), threads)
    read = hugging_face_tokenizer(path)
    if uncut:
        leave_whole(read.tokenizer)
    for mistake in cut_mistakes(read.tokenizer, path):
        raise mistake
    return encoder_of_hugging_face(read)


def leave_whole(tokenizer: Tokenizer) -> None:
    """Turns truncation and padding off: some are saved with them on."""
    tokenizer.no_padding()
    tokenizer.no_truncation()


def cut_mistakes(tokenizer: Tokenizer, folder: str) -> Iterator[ConfigError]:
    """Yields what in ``folder``'s tokenizer.json would cut documents or fill them up.

    A student's may not just be turned off: shards, checkpoints and exports are compared by the
    tokenizer's fingerprint, which would then be that of another file.
    """
    for setting in ("truncation", "padding"):
        if getattr(tokenizer, setting) is not None:
            yield ConfigError(
                f"The tokenizer.json in {folder!r} has a {setting}, which would change every "
                f'document: set "{setting}" to null in it.'
            )


def encoder_of_hugging_face(tokenizer: Any) -> Encoder:
    """Returns the encoder of torchtitan's ``HuggingFaceTokenizer``."""
    return encoder_of_tokenizer(tokenizer.tokenizer, tokenizer.bos_id, tokenizer.eos_id)


def encoder_of_tokenizer(tokenizer: Tokenizer, bos_id: int | None, eos_id: int | None) -> Encoder:
    """Returns the encoder of a tokenizer of the tokenizers package."""
    return Encoder(
        encode_with(tokenizer),
        bos_id,
        eos_id,
        id_count(tokenizer),
        hugging_face_fingerprint(tokenizer),
        partial(pieces_of_hugging_face, tokenizer),
    )


def id_count(tokenizer: Tokenizer) -> int:
    """Returns one more than its largest id: ids may have gaps, which its own count leaves out."""
    return 1 + max(tokenizer.get_vocab().values())


def hugging_face_fingerprint(tokenizer: Tokenizer) -> str:
    """Returns a sha256 over all that it does: vocabulary, merges, special tokens."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def encode_with(tokenizer: Tokenizer) -> Callable[[list[str]], list[list[int]]]:
    """Returns a Hugging Face tokenizer's encoding of a batch, on RAYON_NUM_THREADS threads."""

    def encode(texts: list[str]) -> list[list[int]]:
        return [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    return encode


def encoder_of_ranks(ranks: Ranks, threads: int = 1) -> Encoder:
    """Returns the encoder of one of tiktoken's tokenizers."""
    encoding = ranks.encoding

    def encode(texts: list[str]) -> list[list[int]]:
        pieces = [cut_blanks(text) for text in texts]
        flat = [piece for of_text in pieces for piece in of_text]
        if threads == 1:
            ids = iter([encoding.encode_ordinary(piece) for piece in flat])
        else:
            ids = iter(encoding.encode_ordinary_batch(flat, num_threads=threads))
        return [[i for _ in of_text for i in next(ids)] for of_text in pieces]

    return Encoder(
        encode,
        ranks.bos_id,
        ranks.eos_id,
        ranks.vocab_size,
        ranks.fingerprint(),
        partial(pieces_of_ranks, ranks),
    )


def cut_blanks(text: str) -> list[str]:
    """Cuts a text behind every hundred thousand blanks in a row."""
    if len(text) < 100_000:
        return [text]
    ends = [match.end() for match in LONG_BLANK.finditer(text)]
    return [text[a:b] for a, b in zip([0, *ends], [*ends, None], strict=True)]
