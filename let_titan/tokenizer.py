"""What a run needs to know of its tokenizer beside encoding: vocabulary, fingerprint, bytes."""

import functools
import hashlib
from collections.abc import Callable

import numpy as np
import torch
from tokenizers import Tokenizer
from torchtitan.components.tokenizer import HuggingFaceTokenizer


@functools.lru_cache(maxsize=4)
def load_tokenizer(folder: str) -> HuggingFaceTokenizer:
    """Reads a tokenizer folder once per process."""
    return HuggingFaceTokenizer(folder)


def vocab_size(folder: str) -> int:
    """Returns the number of ids of the tokenizer in ``folder``, added tokens included."""
    return load_tokenizer(folder).get_vocab_size()


def fingerprint(tokenizer: HuggingFaceTokenizer) -> str:
    """Returns a sha256 over all that the tokenizer does: vocabulary, merges, special tokens."""
    return hashlib.sha256(tokenizer.tokenizer.to_str().encode()).hexdigest()


def document_encoder(
    tokenizer: HuggingFaceTokenizer, add_bos: bool, add_eos: bool
) -> Callable[[list[str]], list[np.ndarray]]:
    """Returns a function from texts to their ids [n] int64, BOS and EOS as asked for.

    The tokenizer's own template is left aside, so that nothing else puts special ids in; a BOS or
    EOS that it has not got is not added.
    """
    before = [tokenizer.bos_id] if add_bos and tokenizer.bos_id is not None else []
    after = [tokenizer.eos_id] if add_eos and tokenizer.eos_id is not None else []

    def encode(texts: list[str]) -> list[np.ndarray]:
        encodings = tokenizer.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array([*before, *e.ids, *after], dtype=np.int64) for e in encodings]

    return encode


def token_bytes(tokenizer: Tokenizer) -> torch.Tensor:
    """Returns [V] int64: how many bytes of text each id stands for; special tokens have none.

    Byte-level BPE (GPT-2, Llama 3, SmolLM, Pythia, OPT) writes one character per byte.
    SentencePiece style vocabularies write a space as U+2581 and a byte as <0xNN>.
    """
    special = {i for i, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    byte_level = "ByteLevel" in str(tokenizer.decoder)
    lengths = torch.zeros(tokenizer.get_vocab_size(), dtype=torch.int64)
    for token, index in tokenizer.get_vocab().items():
        if index in special:
            continue
        if byte_level:
            lengths[index] = len(token)
        elif len(token) == 6 and token.startswith("<0x"):
            lengths[index] = 1
        else:
            lengths[index] = len(token.replace("\u2581", " ").encode())
    return lengths
