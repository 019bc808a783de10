"""Holds domains of the lab's corpus out: what students learn first, and what they learn later.

Of the student's half alone, so that no document here was read by the teacher. (Its own half has
all domains.)
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lab.corpus import documents, line_of, number_of, part_of, pieces, write_shuffled

SEEN = "seen"
"""Folder of all the domains that are not held out."""

FIFTH = 5
"""Of a held-out domain, which is small, one document in so many is for validation."""


def deal(pattern: str, folder: Path, held_out: Sequence[str]) -> None:
    """Writes ``folder``/{seen, each held-out domain}/{train,validation}.jsonl.zst, shuffled."""
    parts: dict[str, dict[str, list[bytes]]] = defaultdict(lambda: {"train": [], "validation": []})
    for document in documents(pattern):
        text, meta = str(document["text"]), document["meta"]
        assert isinstance(meta, dict)
        domain = meta["pile_set_name"]
        domain = domain if domain in held_out else SEEN
        part = part_here(text, domain)
        if part is not None:
            cut = pieces(text, part if domain == SEEN else "student")
            parts[domain][part] += [line_of(piece, document) for piece in cut]
    for domain, of_domain in parts.items():
        write_shuffled(of_domain, folder / domain)


def part_here(text: str, domain: str) -> str | None:
    """Returns "train", "validation", or None: a document of the teacher's, or not needed."""
    part = part_of(text)
    if domain == SEEN:
        return {"student": "train", "validation": "validation", "teacher": None}[part]
    if part != "student":
        return None
    # Digits of the hash that part_of does not look at
    return "validation" if number_of(text) // 10**6 % FIFTH == 0 else "train"
