"""Rows of parquet files, from any position, damage named."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow.parquet

from let_titan.data.files import File
from let_titan.data.lines import Line, open_file


def read_rows(file: File, number: int, offset: int, limit: int) -> Iterator[Line]:
    """Yields a parquet file's rows from row ``offset`` on, as {"text", "meta"}.

    Damage anywhere in the file, its footer or a page, ends it.
    """
    with open_file(file) as raw:
        try:
            for row in rows_from(raw, offset):
                yield Line(number, number + 1, row)
                number += 1
        except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
            # An error of the disk has an errno; damage that arrow finds in the bytes has none.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            yield Line(number, number, None, "corrupt parquet file")


def rows_from(raw: BinaryIO, offset: int) -> Iterator[dict[str, Any]]:
    """Yields the rows of an open parquet file from ``offset`` on, a row group in memory at most."""
    table = pyarrow.parquet.ParquetFile(raw)
    columns = columns_of(table.schema_arrow)
    row = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if row + rows > offset:
            batches = table.iter_batches(row_groups=[group], columns=columns)
            for data in (data for batch in batches for data in batch.to_pylist()):
                if row >= offset:
                    yield data
                row += 1
        else:
            row += rows


def columns_of(schema: pyarrow.Schema) -> list[str]:
    """Returns the columns that are read, of those that hold text.

    Others, in "meta" as well, may hold what Python has no value for, such as a date far away.
    """
    names = {field.name: field.type for field in schema}
    fields = {"text": names.get("text")}
    if pyarrow.types.is_struct(meta := names.get("meta", pyarrow.null())):
        fields |= {f"meta.{field.name}": field.type for field in meta}
    wanted = ("text", "meta.pile_set_name")
    return [name for name in wanted if is_text(fields.get(name))]


def is_text(kind: pyarrow.DataType | None) -> bool:
    if kind is not None and pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    checks = (pyarrow.types.is_string, pyarrow.types.is_large_string, pyarrow.types.is_string_view)
    return kind is not None and any(check(kind) for check in checks)
