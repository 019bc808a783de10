"""The bytes of text that each id of a tokenizer stands for; without torch."""

import re
from collections.abc import Callable

from tokenizers import Tokenizer

from let_titan.tokenizer.tiktoken_files import Ranks

Pieces = list[bytes]
"""By id; b"" where an id stands for no text."""


def pieces_of_ranks(ranks: Ranks) -> Pieces:
    """Returns the pieces of one of tiktoken's tokenizers, whose special tokens no text becomes."""
    found = [b""] * ranks.vocab_size
    for piece, index in ranks.ranks.items():
        found[index] = piece
    return found


def pieces_of_hugging_face(tokenizer: Tokenizer) -> Pieces:
    """Returns a Hugging Face tokenizer's pieces; added tokens are the text that is found as them.

    Byte-level BPE (GPT-2, Llama 3, SmolLM, Pythia, OPT) writes a letter for each byte; vocabularies
    of SentencePiece's kind a space as U+2581 and a byte as <0xNN>.
    """
    added = {i: token.content for i, token in tokenizer.get_added_tokens_decoder().items()}
    read = of_letters() if "ByteLevel" in str(tokenizer.decoder) else of_sentence_piece
    vocabulary = tokenizer.get_vocab()
    found = [b""] * (1 + max(vocabulary.values()))
    for token, index in vocabulary.items():
        found[index] = added[index].encode() if index in added else read(token)
    return found


def of_letters() -> Callable[[str], bytes]:
    """Returns the reader of byte-level BPE's tokens."""
    # Imported here: what tokenises a corpus needs it not, and it brings torch.
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    values = {letter: bytes([value]) for value, letter in bytes_to_unicode().items()}
    return lambda token: b"".join(values.get(letter) or letter.encode() for letter in token)


def of_sentence_piece(token: str) -> bytes:
    byte = re.fullmatch("<0x([0-9A-Fa-f]{2})>", token)
    if byte:
        return bytes.fromhex(byte[1])
    return token.replace("\u2581", " ").encode()
