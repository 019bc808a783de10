"""Lanes: the streams of documents that a corpus is dealt into, each with a position of its own.

A lane packs its documents, one after the other, into sequences of seq_len + 1 ids. It does not
depend on the number of ranks or workers.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from torchtitan.tools.logging import logger

from let_titan.data.align import Slice, TeacherRow, Twin
from let_titan.data.corpus import Corpus, Part
from let_titan.data.documents import Document
from let_titan.data.teacher_text import TeacherText
from let_titan.errors import ConfigError

TOKENISE_AT_ONCE = 2**14
"""Characters handed to the tokenizer at once, which is faster than one document after the other."""


class Place(NamedTuple):
    """Where a lane stands: the next id that it has not given away.

    Attributes:
        epoch: how often the lane has been read through.
        file: index among the lane's files of this epoch.
        number, offset: the line with which the current window begins.
        drawn: which document of the window (shuffled or not) holds the id.
        token: the id's index in that document.
        skipped: bad lines by kind, up to the beginning of the window.
    """

    epoch: int = 0
    file: int = 0
    number: int = 0
    offset: int = 0
    drawn: int = 0
    token: int = 0
    skipped: dict[str, int] | None = None


Drawn = tuple[Place, Document, Counter[str]]
"""A document, where the lane stands at it, and the bad lines by kind up to there."""

Window = tuple[Place, list[Document], Counter[str]]
"""Where a window begins, its documents as drawn, and the bad lines by kind up to its end."""


class PackedSequence(NamedTuple):
    """Documents laid end to end, cut to the length of a sequence.

    Attributes:
        ids: [seq_len + 1] int64.
        positions: [seq_len + 1] int64, of each id in its document, or in what the sequence holds
            of it: 0 is the first id of the sequence and of every document that begins in it.
        teacher: what the teacher reads for the first seq_len of them, where it reads by itself.
    """

    ids: np.ndarray
    positions: np.ndarray
    teacher: TeacherRow | None = None


class Tokenised(NamedTuple):
    """A document's ids [n] int64, and how the teacher's tokenizer cuts it, if it was asked."""

    ids: np.ndarray
    twin: Twin | None = None


class Lane:
    """One lane of a corpus, packed to seq_len + 1 ids; iterate once.

    Args:
        corpus: what it is a lane of.
        lane, lanes: which one of how many.
        length: ids in a sequence, seq_len + 1.
        place: where to begin.
        infinite: begin anew at the end.

    Attributes:
        aligned: whether sequences have a teacher's row; once it is false it stays so.
    """

    def __init__(
        self,
        corpus: Corpus,
        lane: int,
        lanes: int,
        length: int,
        place: Place | None = None,
        infinite: bool = True,
    ) -> None:
        self.corpus, self.lane, self.lanes = corpus, lane, lanes
        self.length, self.infinite = length, infinite
        self.place = place or Place()
        self.skipped: Counter[str] = Counter(self.place.skipped)
        self.aligned = corpus.teacher is not None
        self._has_sound_lines = False  # of whatever weight
        self._has_documents = False  # as far as is known: some epoch has one to read
        self._read = self._tokenised()
        self._document = Tokenised(np.empty(0, dtype=np.int64))

    def next(self) -> PackedSequence:
        """Returns the next sequence and moves on.

        Raises:
            StopIteration: the epoch does not fill another one, and the lane is not infinite.
        """
        parts, slices, missing = [], [], self.length
        while missing:
            begin = self.place.token
            part = self._document.ids[begin : begin + missing]
            if not len(part):
                self.place, self._document, self.skipped = next(self._read)
                continue
            parts.append(part)
            slices.append(Slice(self._document.twin, begin, begin + len(part)))
            missing -= len(part)
            self.place = self.place._replace(token=begin + len(part))
        # Each part is of another document.
        positions = np.concatenate([np.arange(len(part)) for part in parts], dtype=np.int64)
        # The last id of a sequence is a label only.
        slices[-1] = slices[-1]._replace(end=slices[-1].end - 1)
        row = self.teacher.row(slices) if self.teacher else None
        return PackedSequence(np.concatenate(parts, dtype=np.int64), positions, row)

    @property
    def teacher(self) -> TeacherText | None:
        return self.corpus.teacher if self.aligned else None

    def _tokenised(self) -> Iterator[tuple[Place, Tokenised, Counter[str]]]:
        """Yields (place, document, bad lines so far), one document after the other."""
        skip, documents = self.place.token, self._documents()
        for batch in batches(documents):
            texts = [doc.text for _, doc, _ in batch if doc.tokens is None]
            encoded = iter(self._encoded(texts) if texts else [])
            for place, doc, skipped in batch:
                read = next(encoded) if doc.tokens is None else self._stored(doc)
                yield place._replace(token=skip), read, skipped
                skip = 0

    def _encoded(self, texts: list[str]) -> Iterable[Tokenised]:
        encoded = self.corpus.encode(texts)
        twins = self.teacher.twins(texts, encoded) if self.teacher else [None] * len(texts)
        return map(Tokenised, encoded, twins)

    def _stored(self, document: Document) -> Tokenised:
        """Returns a document of a token shard."""
        assert document.tokens is not None
        ids, theirs = document.tokens, document.teacher_tokens
        return Tokenised(ids, self.teacher.stored(ids, theirs) if self.teacher else None)

    def _documents(self) -> Iterator[Drawn]:
        place = self.place
        drawn = place.drawn
        for window, documents, skipped in self._windows(place):
            for i in range(drawn, len(documents)):
                yield window._replace(drawn=i), documents[i], skipped
            drawn = 0

    def _windows(self, start: Place) -> Iterator[Window]:
        for epoch in itertools.count(start.epoch):
            parts = self.corpus.parts(epoch, self.lane, self.lanes)
            first = start.file if epoch == start.epoch else 0
            skipped = Counter(start.skipped)
            for index in range(first, len(parts)):
                begin = (
                    start if (epoch, index) == (start.epoch, start.file) else Place(epoch, index)
                )
                yield from self._windows_of(parts[index], begin, skipped)
            start = Place(epoch, len(parts), skipped=dict(skipped))
            if not self.infinite:
                return
            # An epoch may draw none of the documents of a set whose weight is a fraction.
            if not self._has_documents and first == 0:
                raise self._nothing_to_read(skipped)
            if self.lane == 0:
                logger.info(f"The data begins anew: epoch {epoch + 1} of lane 0")

    def _nothing_to_read(self, skipped: Counter[str]) -> ConfigError:
        policy = self.corpus.policy
        if skipped and not self._has_sound_lines:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
            return ConfigError(
                f"Lane {self.lane} of {self.lanes} has no document to read, since all its lines "
                f'are bad ({kinds}): give *.jsonl or *.jsonl.zst with {{"text": ...}} on each '
                'line, or *.parquet with a column "text".'
            )
        if policy.held_out and policy.validation:  # which always has one lane
            return ConfigError(
                f"data.validation_fraction = {policy.held_out} holds out no document that can be "
                "read of the validation data: set a larger one, or give more data."
            )
        cure = "set data.lanes = 1" if self.lanes > 1 else "give its sets a weight in data.weights"
        return ConfigError(
            f"Lane {self.lane} of {self.lanes} has no document to read: give more data, or {cure}."
        )

    def _windows_of(self, part: Part, begin: Place, skipped: Counter[str]) -> Iterator[Window]:
        """Cuts a part of a file into windows of shuffle_buffer documents."""
        corpus, documents, window = self.corpus, [], begin
        before = dict(skipped)
        size = max(1, corpus.shuffle_buffer)
        lines = corpus.read(part.file, begin.number, begin.offset, corpus.policy.limit)
        for line in lines:
            if not part.owns(line.number):
                continue
            document = corpus.policy.read(part.file, line, skipped)
            if document is not None:
                self._has_sound_lines = True
                self._has_documents = self._has_documents or corpus.policy.weight(document) > 0
                documents += [document] * corpus.policy.copies(document, begin.epoch)
            if len(documents) >= size:
                yield self._shuffled(window, before, documents, skipped)
                documents, before = [], dict(skipped)
                window = Place(begin.epoch, begin.file, line.number + 1, line.end)
        if documents:
            yield self._shuffled(window, before, documents, skipped)

    def _shuffled(
        self,
        window: Place,
        before: dict[str, int],
        documents: list[Document],
        skipped: Counter[str],
    ) -> Window:
        if self.corpus.shuffle_buffer:
            seed = [self.corpus.shuffle_seed, self.lane, window.epoch, window.file, window.number]
            order = np.random.default_rng(seed).permutation(len(documents))
            documents = [documents[i] for i in order]
        place = window._replace(drawn=0, token=0, skipped=before)
        return place, documents, Counter(skipped)


def batches(documents: Iterable[Drawn]) -> Iterator[list[Drawn]]:
    """Groups documents for the tokenizer, which is faster on several."""
    batch: list[Drawn] = []
    characters = 0
    for drawn in documents:
        _, document, _ = drawn
        batch.append(drawn)
        characters += len(document.text)
        if characters >= TOKENISE_AT_ONCE or document.tokens is not None:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
