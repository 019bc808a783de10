"""Token shards: a corpus tokenised once, in Arrow IPC files that are memory-mapped when read.

One shard per file of text, with a row per document: its ids (uint16 where the vocabulary allows,
else uint32), the line it came from, the hash of its text and the set it belongs to; where they were
asked for, the ids of a teacher with a tokenizer of its own, too. Arrow is read
without copies, written batch by batch in bounded memory, and any Arrow library can open it. The
schema's metadata holds the header; each batch carries a checksum of its own, so that damage is
found where it is read and not by reading all before the start.

A lane that reads shards gets the documents that it would get from the text: the same files by size,
lines by number and draws by hash.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.ipc

from let_titan.data.documents import Document
from let_titan.data.files import File
from let_titan.data.lines import Line
from let_titan.disk import try_lock
from let_titan.errors import ConfigError, writing

SUFFIX = ".arrow"
DOCUMENTS_PER_BATCH = 256
"""Rows of each batch but the last: where a row is follows from its number."""

HEADER, CHECKSUM = b"let_titan", b"blake2b"
TEACHER = "teacher_tokens"
"""The column of a teacher's ids: of the text alone; empty where they do not spell it."""


def list_of_ids(vocab_size: int) -> pyarrow.DataType:
    return pyarrow.list_(pyarrow.uint16() if vocab_size <= 2**16 else pyarrow.uint32())


class Header(NamedTuple):
    """What a shard says of itself.

    Attributes:
        source, source_size: name and stored bytes of the file of text.
        tokenizer: sha256 of the tokenizer, as in summary.json.
        vocab_size: ids it has.
        add_bos, add_eos, max_document_mib: as in [data].
        teacher_tokenizer, teacher_vocab_size: of a teacher whose ids it has, too; "" has none.
    """

    source: str
    source_size: int
    tokenizer: str
    vocab_size: int
    add_bos: bool
    add_eos: bool
    max_document_mib: int
    teacher_tokenizer: str = ""
    teacher_vocab_size: int = 0

    @property
    def schema(self) -> pyarrow.Schema:
        columns = {
            "tokens": list_of_ids(self.vocab_size),
            "line": pyarrow.int64(),
            "hash": pyarrow.uint64(),
            "pile_set_name": pyarrow.string(),
        }
        if self.teacher_tokenizer:
            columns[TEACHER] = list_of_ids(self.teacher_vocab_size)
        return pyarrow.schema(columns, metadata={HEADER: json.dumps(self._asdict())})


class ShardWriter:
    """Writes one shard; a context manager, without whose good end no file is left at ``path``."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.schema = path, header.schema
        self.scratch = path.with_name(path.name + ".part")
        self._rows: list[tuple[np.ndarray, int, int, str]] = []
        self._teacher: list[np.ndarray] = []

    def __enter__(self) -> "ShardWriter":
        with writing(self.path):
            self._lock = os.open(self.scratch, os.O_RDWR | os.O_CREAT, 0o666)
            if not try_lock(self._lock):
                os.close(self._lock)
                raise ConfigError(
                    f"{self.path} is being written by another process: let it end, or give each "
                    "process files of its own."
                )
            self._writer = pyarrow.ipc.new_file(str(self.scratch), self.schema)
        return self

    def add(
        self, tokens: np.ndarray, line: int, document: Document, teacher: np.ndarray | None = None
    ) -> None:
        """Adds a document; ``teacher``: its teacher's ids, in a shard that has them."""
        small = self._in_type("tokens", tokens)
        self._rows.append((small, line, document.hash, document.pile_set_name))
        if teacher is not None:
            self._teacher.append(self._in_type(TEACHER, teacher))
        if len(self._rows) == DOCUMENTS_PER_BATCH:
            self._flush()

    def _flush(self) -> None:
        tokens, lines, hashes, names = zip(*self._rows, strict=True)
        columns = [
            self._lists("tokens", tokens),
            pyarrow.array(lines, pyarrow.int64()),
            pyarrow.array(hashes, pyarrow.uint64()),
            pyarrow.array(names, pyarrow.string()),
        ]
        if TEACHER in self.schema.names:
            columns.append(self._lists(TEACHER, self._teacher))
        batch = pyarrow.record_batch(columns, schema=self.schema)
        with writing(self.path):
            self._writer.write_batch(batch, custom_metadata={CHECKSUM: checksum(batch)})
        self._rows, self._teacher = [], []

    def _in_type(self, name: str, ids: np.ndarray) -> np.ndarray:
        """Returns ids in the type that the schema gives a column of lists."""
        return ids.astype(self.schema.field(name).type.value_type.to_pandas_dtype())

    def _lists(self, name: str, ids: Sequence[np.ndarray]) -> pyarrow.ListArray:
        """Returns a column of lists of ids."""
        ends = np.cumsum([0, *map(len, ids)])
        if ends[-1] >= 2**31:
            raise ConfigError(
                f"{self.path}: {DOCUMENTS_PER_BATCH} documents hold {ends[-1]:,} tokens, and Arrow "
                f"counts fewer than {2**31:,} in a batch: lower --max-document-mib."
            )
        kind = self.schema.field(name).type
        return pyarrow.ListArray.from_arrays(ends.astype(np.int32), np.concatenate(ids), type=kind)

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is None and self._rows:
                self._flush()
            with writing(self.path):
                self._writer.close()
                if kind is None:
                    self.scratch.replace(self.path)
        finally:
            self.scratch.unlink(missing_ok=True)  # it may have filled the disk
            os.close(self._lock)


def checksum(batch: pyarrow.RecordBatch) -> bytes:
    """Returns the hex digest of all of a batch's columns."""
    digest = hashlib.blake2b(digest_size=16)
    ids = [batch.column(name) for name in ("tokens", TEACHER) if name in batch.schema.names]
    parts = [part for lists in ids for part in (lists.values, lists.offsets)]
    for array in (*parts, batch.column("line"), batch.column("hash")):
        digest.update(array.to_numpy().tobytes())
    digest.update("\n".join(batch.column("pile_set_name").to_pylist()).encode())
    return digest.hexdigest().encode()


@functools.lru_cache(maxsize=64)
def open_shard(path: str) -> pyarrow.RecordBatchFileReader:
    """Maps a shard into memory.

    Raises:
        ConfigError: it is none, or not whole.
    """
    try:
        reader = pyarrow.ipc.open_file(pyarrow.memory_map(path))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise damaged(path, str(error)) from error
    if HEADER not in (reader.schema.metadata or {}):
        raise damaged(path, "it has no header of let_titan's")
    return reader


def read_header(path: str) -> Header:
    return Header(**json.loads(open_shard(path).schema.metadata[HEADER]))


def check_shard(path: str, **wanted: Any) -> None:
    """Checks that a shard was made with these values of its header.

    Raises:
        ConfigError: names what differs.
    """
    found = read_header(path)
    for name, value in wanted.items():
        if getattr(found, name) != value:
            raise ConfigError(
                f"{path} was made with {name} = {getattr(found, name)!r}, and now it is {value!r}: "
                "use the same, or make shards of this kind in another folder."
            )


def check_text(files: Sequence[File]) -> None:
    """Checks that files hold text.

    Raises:
        ConfigError: one of them is a token shard.
    """
    for file in files:
        if file.name.endswith(SUFFIX):
            raise ConfigError(
                f"{file.path!r} is a token shard, which does not hold the text: give the files "
                "that it was made of."
            )


def damaged(path: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} is not a whole token shard ({reason}): delete it and make it again with "
        "python -m let_titan.data.tokenize."
    )


def read_shard(path: str, row: int) -> Iterator[Line]:
    """Yields documents, with their ids, from ``row`` on."""
    reader = open_shard(path)
    first = row // DOCUMENTS_PER_BATCH
    for index in range(first, reader.num_record_batches):
        try:
            batch, metadata = reader.get_batch_with_custom_metadata(index)
            intact = (metadata or {}).get(CHECKSUM) == checksum(batch)
        except (pyarrow.ArrowException, UnicodeDecodeError, OSError):
            intact = False
        if not intact:
            raise damaged(path, f"the checksum of batch {index} is wrong")
        start = index * DOCUMENTS_PER_BATCH
        yield from documents_of(batch, start, max(0, row - start))


def documents_of(batch: pyarrow.RecordBatch, start: int, skip: int) -> Iterator[Line]:
    """Yields a batch's documents after the first ``skip``; its first row is row ``start``."""
    tokens = lists_of(batch, "tokens")
    teacher = lists_of(batch, TEACHER) if TEACHER in batch.schema.names else None
    columns = (batch.column(name).to_pylist() for name in ("line", "hash", "pile_set_name"))
    for i, (line, number, name) in enumerate(zip(*columns, strict=True)):
        if i >= skip:
            theirs = None if teacher is None else teacher(i)
            yield Line(line, start + i + 1, Document("", name, number, tokens(i), theirs))


def lists_of(batch: pyarrow.RecordBatch, name: str) -> Callable[[int], np.ndarray]:
    """Returns a function from a row of the batch to its ids, which are not copied."""
    column = batch.column(name)
    values, ends = column.values.to_numpy(), column.offsets.to_numpy().tolist()
    return lambda row: values[ends[row] : ends[row + 1]]
