"""Lines of jsonl and jsonl.zst files, from any position, damage named.

Memory is bounded whatever a file holds: a line whose text is longer than the limit is thrown away
while it is being read, and comes out as damaged.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import zstandard

from let_titan.data.files import File
from let_titan.data.remote import HUB, RANGE, REMOTE, RemoteFile

CHUNK = 2**20
"""Bytes read at once from a local file."""

ESCAPED = 6
"""Bytes of a line, as in "\\u0041", that may stand for one of its text."""
BESIDE_TEXT = 2**20
"""Bytes that a line may hold beside its text."""

PIECE = 2**8
"""Bytes of a zstd frame that are unpacked at once. Four bytes may stand for 128 KiB, so that this
bounds what comes out: 8 MiB."""
LONGEST_WINDOW = 2**31
"""Bytes: of ``zstd --long=31``. A frame takes as much of its window as it fills."""


@dataclass(slots=True)
class Line:
    """One line or row of a file.

    Attributes:
        number: its index in the file, from 0.
        end: where the next one starts: bytes (after decompression), rows for parquet and shards.
        data: the line's bytes, or the row; None where it is damaged.
        damage: what is wrong with it, "" for nothing.
    """

    number: int
    end: int
    data: Any
    damage: str = ""


def open_file(file: File) -> BinaryIO:
    if file.path.startswith((HUB, *REMOTE)):
        return io.BufferedReader(RemoteFile(file.path, file.size), RANGE)
    return open(file.path, "rb")


def read_lines(file: File, number: int, offset: int, limit: int) -> Iterator[Line]:
    """Yields the lines from ``offset`` on, the first of which is line ``number``.

    Args:
        limit: bytes of text above which a line is "too long", as far as this can be told without
            reading its JSON.
    """
    with open_file(file) as raw:
        if file.name.endswith(".zst"):
            chunks = decompressed(raw, offset)
        else:
            raw.seek(offset)
            chunks = iter(lambda: (raw.read(CHUNK), ""), (b"", ""))
        yield from split_lines(chunks, number, offset, limit)


def decompressed(raw: BinaryIO, offset: int) -> Iterator[tuple[bytes, str]]:
    """Yields (bytes, damage) of a zstd file of one or more frames, from ``offset`` of its text."""
    frame, started = new_frame(), False
    held = bytearray()
    for data in pieces(raw):
        while data:
            try:
                text, started = frame.decompress(data), True
            except zstandard.ZstdError:
                yield bytes(held), ""
                yield b"", "corrupt zstd frame"
                return
            data = b""
            if frame.eof:
                data = frame.unused_data
                frame, started = new_frame(), False
            dropped = min(offset, len(text))
            offset -= dropped
            held += text[dropped:]
            if len(held) >= CHUNK:
                yield bytes(held), ""
                held.clear()
    yield bytes(held), ""
    if started:
        yield b"", "truncated zstd frame"


def new_frame() -> "zstandard.ZstdDecompressionObj":
    # A buffer of its own, of write_size, goes with each call: the default is too large for pieces.
    decompressor = zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW)
    return decompressor.decompressobj(write_size=2**14)


def pieces(raw: BinaryIO) -> Iterator[bytes]:
    """Yields a file in pieces that are small enough to be unpacked."""
    while data := raw.read(CHUNK):
        for begin in range(0, len(data), PIECE):
            yield data[begin : begin + PIECE]


def split_lines(
    chunks: Iterator[tuple[bytes, str]], number: int, offset: int, limit: int
) -> Iterator[Line]:
    """Cuts chunks at line ends; damage takes the unfinished line with it."""
    rest = Unfinished(limit)
    for chunk, damage in chunks:
        if damage:
            yield Line(number, offset + rest.length, None, damage)
            return
        *whole, last = chunk.split(b"\n")
        for part in whole:
            rest.add(part)
            offset += rest.length + 1
            yield rest.line(number, offset)
            number, rest = number + 1, Unfinished(limit)
        rest.add(last)
    if rest.length:
        yield rest.line(number, offset + rest.length)


class Unfinished:
    """The line that is being read, of which nothing is kept once it is too long.

    Args:
        limit: bytes of its text.

    Attributes:
        length: its bytes, kept or not.
    """

    def __init__(self, limit: int) -> None:
        self.length, self._line_limit = 0, limit + BESIDE_TEXT
        self._parts: list[bytes] = []
        self._saved = 0
        self._too_long = False

    def add(self, part: bytes) -> None:
        self.length += len(part)
        if self._too_long or not part:
            return
        # An escape may be cut in two.
        before = self._parts[-1][-1:] if self._parts else b""
        self._saved += saved(part) + (4 if before + part[:1] == b"\\u" else 0)
        self._parts.append(part)
        # Over the limit with an escape for the one byte that it may stand for, or whatever it holds
        if self.length > self._line_limit and (
            self.length - self._saved > self._line_limit or self.length > ESCAPED * self._line_limit
        ):
            self._too_long, self._parts = True, []

    def line(self, number: int, end: int) -> Line:
        """Returns the line, which ends here."""
        if self._too_long:
            return Line(number, end, None, "too long")
        return Line(number, end, b"".join(self._parts))


def saved(data: bytes) -> int:
    """Returns by how many bytes a stretch of JSON is longer than the text it spells, at most.

    One for "\\n", and five for "\\u0041", six bytes that may be one in UTF-8.
    """
    return data.count(b"\\") + 4 * data.count(b"\\u")
