"""Any file of a corpus as lines, by what its name says it is."""

from collections.abc import Iterator

from let_titan.data.files import File
from let_titan.data.lines import Line, read_lines
from let_titan.data.parquet import read_rows
from let_titan.data.shards import SUFFIX, read_shard


def read_file(file: File, number: int, offset: int, limit: int) -> Iterator[Line]:
    """Yields a file's lines from (number, offset) on."""
    if file.name.endswith(SUFFIX):
        return read_shard(file.path, offset)
    reader = read_rows if file.name.endswith(".parquet") else read_lines
    return reader(file, number, offset, limit)
