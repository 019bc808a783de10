"""Small files of tiktoken's, made here: nothing is downloaded."""

import base64
import itertools
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.conftest import TEXTS

SINGLE = [bytes([value]) for value in range(256)]


def write_ranks(path: Path, tokens: list[bytes], leaving_out: int | None = None) -> Path:
    ranks = (rank for rank in itertools.count() if rank != leaving_out)
    lines = (
        base64.b64encode(token) + b" %d\n" % rank
        for token, rank in zip(tokens, ranks, strict=False)
    )
    path.write_bytes(b"".join(lines))
    return path


def trained(size: int) -> list[bytes]:
    """Returns the tokens of a byte-level BPE, in the order in which they were merged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    letters = {letter: value for value, letter in bytes_to_unicode().items()}
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [bytes(letters[letter] for letter in word) for word, _ in words]


def llama_3_file(folder: Path) -> Path:
    """A tokenizer.model of 300 ranks."""
    return write_ranks(folder / "tokenizer.model", trained(300))


def openai_file(folder: Path, name: str, ranks: int) -> Path:
    """A file with as many ranks as OpenAI's of that name: bytes, pairs, and pairs repeated."""
    pairs = [a + b for a, b in itertools.product(SINGLE, SINGLE)]
    repeated = (pair * n for n in (2, 4, 8) for pair in pairs if pair[0] != pair[1])
    tokens = list(itertools.islice(itertools.chain(SINGLE, pairs, repeated), ranks))
    if name == "p50k_base":
        return write_ranks(folder / f"{name}.tiktoken", tokens, leaving_out=50256)
    return write_ranks(folder / f"{name}.tiktoken", tokens)
