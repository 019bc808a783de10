"""From a line to a document: what The Pile's format asks of it, and what to do with the rest."""

import codecs
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from let_titan.data.lines import Line


class BadLine(ValueError):
    """A line that holds no document; its text is the kind of damage, as the summary counts it."""


@dataclass(slots=True)
class Document:
    """A document, as text or, from a token shard, as ids.

    Attributes:
        text: what was read; "" from a shard.
        pile_set_name: the set it belongs to, "" where the line does not say.
        hash: of the text, uniform in [0, 2**64).
        tokens: its ids with BOS and EOS, once they are known.
        teacher_tokens: a teacher's own of the text alone, from a token shard that has them.
    """

    text: str
    pile_set_name: str
    hash: int
    tokens: np.ndarray | None = None
    teacher_tokens: np.ndarray | None = None


def text_hash(text: bytes) -> int:
    """Returns a number in [0, 2**64) that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def parse(line: Line, limit: int) -> Document:
    """Returns a line's document.

    Args:
        limit: bytes of text above which a document is "too long".

    Raises:
        BadLine: it holds none.
    """
    if line.damage:
        raise BadLine(line.damage)
    if isinstance(line.data, Document):  # from a token shard
        return line.data
    row = decode(line.data, line.number) if isinstance(line.data, bytes) else line.data
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise BadLine('no "text"')
    encoded = encode(text)
    if not text:
        raise BadLine("empty")
    if len(encoded) > limit:
        raise BadLine("too long")
    meta = row.get("meta")
    name = meta.get("pile_set_name") if isinstance(meta, dict) else None
    name = name if isinstance(name, str) else ""
    encode(name)
    return Document(text, name, text_hash(encoded))


def encode(text: str) -> bytes:
    """Returns UTF-8, which cannot spell half a surrogate pair as JSON can: that is a bad line."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadLine("invalid UTF-8") from None


def decode(data: bytes, number: int) -> Any:
    """Returns the JSON of line ``number`` of a file."""
    if number == 0:
        data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise BadLine("empty")
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError:
        raise BadLine("invalid UTF-8") from None
    except (ValueError, RecursionError):
        raise BadLine("bad JSON") from None
