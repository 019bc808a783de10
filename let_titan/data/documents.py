"""From a line to a document: what The Pile's format asks of it, and what to do with the rest."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torchtitan.tools.logging import logger

from let_titan.data.files import File
from let_titan.data.lines import Line
from let_titan.errors import ConfigError

HASH_SPAN = 2**64


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
    """

    text: str
    pile_set_name: str
    hash: int
    tokens: np.ndarray | None = None


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
    if isinstance(line.data, bytes) and not line.data.strip():
        raise BadLine("empty")
    row = decode(line.data) if isinstance(line.data, bytes) else line.data
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise BadLine('no "text"')
    try:
        encoded = text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell and UTF-8 cannot
        raise BadLine("invalid UTF-8") from None
    if not text:
        raise BadLine("empty")
    if len(encoded) > limit:
        raise BadLine("too long")
    meta = row.get("meta")
    name = meta.get("pile_set_name") if isinstance(meta, dict) else None
    return Document(text, name if isinstance(name, str) else "", text_hash(encoded))


def decode(data: bytes) -> Any:
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError:
        raise BadLine("invalid UTF-8") from None
    except (ValueError, RecursionError):
        raise BadLine("bad JSON") from None


@dataclass
class Policy:
    """Which documents are read, and what a bad line does.

    Args:
        bad_lines: "skip" (and count) or "stop".
        limit: bytes of the longest document.
        weights: expected copies of a document per epoch by pile_set_name; 1 where not named.
        held_out: fraction of documents, by hash, that is for validation only.
        validation: read what is held out instead of the rest.
    """

    bad_lines: str = "skip"
    limit: int = 16 * 2**20
    weights: dict[str, float] = field(default_factory=dict)
    held_out: float = 0.0
    validation: bool = False

    def read(self, file: File, line: Line, skipped: Counter[str]) -> Document | None:
        """Returns the line's document; None, counted, for a bad line.

        Raises:
            ConfigError: a bad line, and bad lines stop the run.
        """
        try:
            return parse(line, self.limit)
        except BadLine as error:
            where = f"{file.path}, line {line.number + 1}: {error}"
            if self.bad_lines == "stop":
                raise ConfigError(
                    f'{where}. Mend or remove it, or set data.bad_lines = "skip" to go on '
                    "without it."
                ) from error
            kind = str(error)
            if not skipped[kind]:
                logger.warning(f"{where}; skipped, as all further ones of this kind will be")
            skipped[kind] += 1
            return None

    def copies(self, document: Document, epoch: int) -> int:
        """Returns how often a document is read in an epoch."""
        if self.held_out and self.validation != (document.hash < self.held_out * HASH_SPAN):
            return 0
        weight = self.weights.get(document.pile_set_name, 1.0) if self.weights else 1.0
        if self.validation:
            return int(weight > 0)
        whole = int(weight)
        if whole == weight:
            return whole
        # Another draw for each epoch, from bits that the split by hash has not looked at.
        draw = text_hash(f"{document.hash} {epoch}".encode())
        return whole + (draw < (weight - whole) * HASH_SPAN)
