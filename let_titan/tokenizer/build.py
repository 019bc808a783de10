"""The run's tokenizer: a Hugging Face folder, or one of tiktoken's behind the same interface."""

import functools
from pathlib import Path
from typing import TypeAlias

import torch
from tokenizers import Tokenizer
from torchtitan.components.tokenizer import BaseTokenizer, HuggingFaceTokenizer

from let_titan.tokenizer.encoder import (
    DocumentEncoder,
    Encoder,
    encoder_of_hugging_face,
    encoder_of_ranks,
    hugging_face_fingerprint,
    id_count,
)
from let_titan.tokenizer.lean import HF_FILES, hugging_face_tokenizer
from let_titan.tokenizer.pieces import pieces_of_hugging_face, pieces_of_ranks
from let_titan.tokenizer.tiktoken_files import Ranks, find_ranks, is_tiktoken, read_ranks
from let_titan.tokenizer.tiktoken_to_hf import hugging_face_form


class TiktokenTokenizer(BaseTokenizer):
    """tiktoken encodes; what compares and exports tokenizers sees the Hugging Face form of it.

    Attributes:
        ranks: vocabulary, split pattern and special tokens.
        bos_id, eos_id: as in ``HuggingFaceTokenizer``.
        config: what its tokenizer_config.json says of special tokens.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks
        self.bos_id, self.eos_id = ranks.bos_id, ranks.eos_id
        self.config = {"bos_token": ranks.bos, "eos_token": ranks.eos}

    @functools.cached_property
    def encoder(self) -> Encoder:
        """What the data path needs; its fingerprint reads every rank, so it is made once."""
        return encoder_of_ranks(self.ranks)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The Hugging Face form: the same ids for every text that spells no special token."""
        return hugging_face_form(self.ranks)

    def encode(self, text: str, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        """Returns a text's ids; special tokens in the text are text."""
        [ids] = self.encoder.encode([text])
        before = [self.bos_id] if add_bos and self.bos_id is not None else []
        return [*before, *ids, *([self.eos_id] if add_eos and self.eos_id is not None else [])]

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        special = set(self.ranks.special.values()) if skip_special_tokens else set()
        return self.ranks.encoding.decode([i for i in ids if i not in special])

    def get_vocab_size(self) -> int:
        return self.ranks.vocab_size


RunTokenizer: TypeAlias = HuggingFaceTokenizer | TiktokenTokenizer


def has_tokenizer(path: str) -> bool:
    """Whether ``path`` is a tokenizer that can be read here."""
    if is_tiktoken(path):
        try:
            return find_ranks(path).is_file()
        except ValueError:
            return False
    return any((Path(path) / name).exists() for name in HF_FILES)


@functools.lru_cache(maxsize=4)
def load_tokenizer(path: str) -> RunTokenizer:
    """Reads a tokenizer once per process: a folder, or a file or name of tiktoken's.

    Raises:
        ConfigError: it is damaged, or not on this machine.
    """
    if is_tiktoken(path):
        return TiktokenTokenizer(read_ranks(path))
    return hugging_face_tokenizer(path)


def vocab_size(path: str) -> int:
    """Returns the rows of an embedding for a tokenizer's ids, added and unused ones included."""
    return embedding_size(load_tokenizer(path))


def embedding_size(tokenizer: RunTokenizer) -> int:
    """Returns one more than the largest id."""
    if isinstance(tokenizer, TiktokenTokenizer):
        return tokenizer.get_vocab_size()
    return id_count(tokenizer.tokenizer)


def fingerprint(tokenizer: RunTokenizer) -> str:
    """Returns a sha256 over all that the tokenizer does: vocabulary, merges, special tokens."""
    if isinstance(tokenizer, TiktokenTokenizer):
        return tokenizer.ranks.fingerprint()
    return hugging_face_fingerprint(tokenizer.tokenizer)


def encoder_of(tokenizer: RunTokenizer) -> Encoder:
    """Returns what the data path needs of a tokenizer."""
    if isinstance(tokenizer, TiktokenTokenizer):
        return tokenizer.encoder
    return encoder_of_hugging_face(tokenizer)


def document_encoder(tokenizer: RunTokenizer, add_bos: bool, add_eos: bool) -> DocumentEncoder:
    """Returns a function from texts to their ids [n] int64, BOS and EOS as asked for."""
    return encoder_of(tokenizer).documents(add_bos, add_eos)


def token_bytes(tokenizer: RunTokenizer) -> torch.Tensor:
    """Returns [V] int64: how many bytes of text each id stands for; special tokens have none."""
    if isinstance(tokenizer, TiktokenTokenizer):
        return torch.tensor([len(piece) for piece in pieces_of_ranks(tokenizer.ranks)])
    lengths = [len(piece) for piece in pieces_of_hugging_face(tokenizer.tokenizer)]
    for index, added in tokenizer.tokenizer.get_added_tokens_decoder().items():
        if added.special:
            lengths[index] = 0
    return torch.tensor(lengths)
