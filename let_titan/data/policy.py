"""Which documents are read, and what a bad line does, as [data] asks for it."""

import logging
from collections import Counter
from dataclasses import dataclass, field

from let_titan.data.documents import BadLine, Document, parse, text_hash
from let_titan.data.files import File
from let_titan.data.lines import Line
from let_titan.data.settings import RANGES, Data
from let_titan.data.weights import weights_of
from let_titan.errors import ConfigError
from let_titan.ranges import out_of_range

HASH_SPAN = 2**64

logger = logging.getLogger()  # the root, as torchtitan's


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

    def weight(self, document: Document) -> float:
        """Returns how often an epoch reads a document on average; 0: no epoch reads it."""
        if self.held_out and self.validation != (document.hash < self.held_out * HASH_SPAN):
            return 0
        weight = self.weights.get(document.pile_set_name, 1.0) if self.weights else 1.0
        return int(weight > 0) if self.validation else weight

    def copies(self, document: Document, epoch: int) -> int:
        """Returns how often a document is read in an epoch."""
        weight = self.weight(document)
        whole = int(weight)
        if whole == weight:
            return whole
        # Another draw for each epoch, from bits that the split by hash has not looked at.
        draw = text_hash(f"{document.hash} {epoch}".encode())
        return whole + (draw < (weight - whole) * HASH_SPAN)


def policy_of(data: Data, validation: bool) -> Policy:
    """Returns which documents [data] asks for.

    Raises:
        ConfigError: a value is out of range.
    """
    for key, allowed in RANGES.items():
        value = getattr(data, key)
        if value not in allowed:
            raise out_of_range(f"data.{key}", value, allowed)
    return Policy(
        data.bad_lines,
        data.max_document_mib * 2**20,
        weights_of(data.weights),
        data.validation_fraction,
        validation,
    )
