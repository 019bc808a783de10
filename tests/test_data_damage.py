"""Damaged data is skipped and counted, or stops with a sentence."""

import errno
import io
import json
import tracemalloc
from collections import Counter

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from let_titan.data.files import data_files
from let_titan.data.lines import Unfinished
from let_titan.data.reading import read_file
from let_titan.errors import ConfigError
from tests.pile_rows import LINES, MIB, ROWS, read

BAD = {
    "bad JSON": b'{"text": "a',
    'no "text"': b'{"meta": {}}',
    "invalid UTF-8": b'{"text": "\xff"}',
    "empty": b'{"text": ""}',
    "too long": b'{"text": "' + b"a" * 2 * MIB + b'"}',
}
MORE_BAD = {
    b"[1, 2]": 'no "text"',
    b'{"text": 3}': 'no "text"',
    b'{"text": null}': 'no "text"',
    b'{"text": "\\ud800"}': "invalid UTF-8",
    b'{"text": "a", "meta": {"pile_set_name": "\\ud800"}}': "invalid UTF-8",
    b'\xef\xbb\xbf{"text": "a"}': "bad JSON",
    b"": "empty",
    b"[" * 10**5: "bad JSON",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lanes", [1, 3])
def test_bad_lines_are_counted_once_whatever_the_lanes(packed, lanes, tmp_path):
    lines = LINES.copy()
    for i, bad in enumerate([*BAD.values(), *MORE_BAD]):
        lines.insert(10 * i, bad + b"\n")
    wanted = Counter([*BAD, *MORE_BAD.values()])
    path = tmp_path / f"x.jsonl{'.zst' * packed}"
    data = b"".join(lines)
    path.write_bytes(zstandard.compress(data) if packed else data)
    texts, skipped = read(path, lanes, limit=MIB)
    assert sorted(texts) == sorted(row["text"] for row in ROWS)
    assert skipped == wanted


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.zst"])
def test_a_byte_order_mark_at_a_files_start_costs_nothing(name, tmp_path):
    """Two files: it is the second one's, too, and of no other line (see MORE_BAD)."""
    data = b"\xef\xbb\xbf" + b"".join(LINES)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(zstandard.compress(data) if "zst" in name else data)
    texts, skipped = read(tmp_path / "*/*")
    assert texts == 2 * [row["text"] for row in ROWS] and not skipped


@pytest.mark.parametrize("kind", BAD)
def test_stop_names_file_line_and_cure(kind, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join([*LINES[:7], BAD[kind], b"\n", *LINES[7:]]))
    with pytest.raises(ConfigError, match=rf"x\.jsonl, line 8: {kind}\. Mend.*bad_lines"):
        read(path, limit=MIB, bad_lines="stop")


@pytest.mark.parametrize("bad_lines", ["skip", "stop"])
@pytest.mark.parametrize("damage", ["truncated zstd frame", "corrupt zstd frame"])
def test_a_damaged_frame_costs_its_rest_and_no_other_file(damage, bad_lines, tmp_path):
    # Distinct random texts, so that the frame has many blocks.
    rng = np.random.default_rng(0)
    rows = [{"text": rng.bytes(3000).hex()} for _ in range(300)]
    packed = bytearray(zstandard.compress(b"".join(json.dumps(r).encode() + b"\n" for r in rows)))
    if damage.startswith("truncated"):
        packed = packed[: len(packed) // 2]
    else:
        packed = packed[: len(packed) // 2] + b"\xff" * 100 + packed[len(packed) // 2 + 100 :]
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    (tmp_path / "b.jsonl").write_bytes(b"".join(LINES))
    if bad_lines == "stop":
        with pytest.raises(ConfigError, match=rf"a\.jsonl\.zst, line \d+: {damage}"):
            read(tmp_path / "*", bad_lines=bad_lines)
        return
    texts, skipped = read(tmp_path / "*")
    whole = [row["text"] for row in rows]
    count = len(texts) - len(ROWS)
    assert texts[:count] == whole[:count] and texts[count:] == [row["text"] for row in ROWS]
    assert skipped == {damage: 1} and (count > 50 or damage.startswith("corrupt"))


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_no_damage_to_a_shard_is_silent_or_a_traceback(data, tmp_path_factory):
    """Bytes changed, cut out or cut off: what is read is intact, and what is not is counted."""
    folder = tmp_path_factory.mktemp("shard")
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    packed = bytearray(compressor.compress(b"".join(LINES)))
    at = data.draw(st.integers(0, len(packed) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "hole"]))
    if how == "flip":
        packed[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del packed[at : None if how == "cut" else at + 1 + data.draw(st.integers(0, 50))]
    (folder / "a.jsonl.zst").write_bytes(packed)
    (folder / "b.jsonl").write_bytes(LINES[0])
    texts, skipped = read(folder / "*")
    if sum(skipped.values()) == 0:
        # A flipped bit that changes nothing that is read, or no byte of the file left at all.
        assert texts == [row["text"] for row in [*ROWS, ROWS[0]]] or at == 0
    else:
        assert texts[-1] == ROWS[0]["text"]


def test_several_frames_and_no_last_line_end(tmp_path):
    frames = [zstandard.compress(b"".join(LINES[i : i + 100])) for i in range(0, 400, 100)]
    frames[-1] = zstandard.compress(b"".join(LINES[300:])[:-1])
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert read(tmp_path / "*") == ([row["text"] for row in ROWS], {})


def test_parquet_is_read_alike_and_from_any_row(tmp_path):
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=64)
    (file,) = data_files(f"{tmp_path}/*")
    assert read(tmp_path / "*") == ([row["text"] for row in ROWS], {})
    for row in (0, 63, 64, 399, 400):
        lines = list(read_file(file, row, row, MIB))
        assert [line.data["text"] for line in lines] == [r["text"] for r in ROWS[row:]]
        assert [line.number for line in lines] == list(range(row, 400))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "b.jsonl").write_bytes(LINES[0])
    assert read(tmp_path / "*") == ([ROWS[0]["text"]], {"corrupt parquet file": 1})


def test_of_a_parquet_file_only_what_is_needed_is_read(tmp_path):
    """Python has no date in the year 36,000; nobody asked for it."""
    far = pyarrow.array([2**60, 2**60], pyarrow.timestamp("us"))
    sets = pyarrow.array(["a", None]).dictionary_encode()
    meta = pyarrow.StructArray.from_arrays([far, sets], ["seen", "pile_set_name"])
    table = pyarrow.table({"seen": far, "meta": meta, "text": ["one", "two"]})
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table, path)
    assert read(path, weights={"a": 2.0}) == (["one", "one", "two"], {})
    for name in ("text", "other"):
        pyarrow.parquet.write_table(pyarrow.table({name: far}), path)
        (tmp_path / "b.jsonl").write_bytes(LINES[0])
        assert read(tmp_path / "*") == ([ROWS[0]["text"]], {'no "text"': 2})
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one"], "meta": far[:1]}), path)
    assert read(path) == (["one"], {})


@pytest.mark.parametrize("bad_lines", ["skip", "stop"])
@pytest.mark.parametrize("kind", ["snappy", "none"])
def test_a_damaged_page_costs_the_rest_of_its_file_and_no_other(kind, bad_lines, tmp_path):
    """Of row groups of 64, the third's texts: not to be unpacked, or no text at all."""
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_pylist([{"text": row["text"]} for row in ROWS])
    pyarrow.parquet.write_table(
        table, path, row_group_size=64, compression=kind, use_dictionary=False
    )
    column = pyarrow.parquet.read_metadata(path).row_group(2).column(0)
    end = column.data_page_offset + column.total_compressed_size
    damaged = bytearray(path.read_bytes())
    damaged[end - 100 : end - 80] = b"\xff" * 20
    path.write_bytes(damaged)
    (tmp_path / "b.jsonl").write_bytes(b"".join(LINES))
    if bad_lines == "stop":
        with pytest.raises(ConfigError, match=r"a\.parquet, line 129: corrupt parquet file.*Mend"):
            read(tmp_path / "*", bad_lines=bad_lines)
        return
    texts = [row["text"] for row in [*ROWS[:128], *ROWS]]
    assert read(tmp_path / "*") == (texts, {"corrupt parquet file": 1})


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_no_damage_to_a_parquet_file_is_a_traceback(data, tmp_path_factory):
    """Without checksums it may be silent: what is promised is that the next file is read."""
    folder = tmp_path_factory.mktemp("parquet")
    path = folder / "a.parquet"
    kind = data.draw(st.sampled_from(["snappy", "none", "zstd"]))
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, path, row_group_size=64, compression=kind)
    packed = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at : at + 20] = data.draw(st.binary(max_size=20))
    path.write_bytes(packed)
    (folder / "b.jsonl").write_bytes(LINES[0])
    texts, _ = read(folder / "*")
    assert texts[-1] == ROWS[0]["text"]


def test_what_the_disk_refuses_is_no_damage(tmp_path, monkeypatch):
    class Disk(io.BytesIO):
        def read(self, size=-1):
            raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    monkeypatch.setattr("let_titan.data.parquet.open_file", lambda file: Disk(path.read_bytes()))
    with pytest.raises(OSError, match="Input/output error"):
        read(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("letter", ["\u4f60", "\x01", "\n", "\\"])
def test_the_limit_is_of_the_text_and_not_of_its_escapes(letter, packed, tmp_path):
    """Two to six bytes of JSON a byte of text: 3 MiB is the limit, and a letter more too long."""
    text = letter * (3 * MIB // len(letter.encode()))
    path = tmp_path / f"x.jsonl{'.zst' * packed}"
    lines = b"".join(json.dumps({"text": t}).encode() + b"\n" for t in (text, text + letter, "a"))
    assert len(lines) > 2 * len(text.encode()) * 2
    path.write_bytes(zstandard.compress(lines) if packed else lines)
    texts, skipped = read(path, limit=3 * MIB)
    assert texts == [text, "a"] and skipped == {"too long": 1}


@pytest.mark.parametrize("part", [b"a", b"\\u0041", b"\\u", b"\\\\u"])
def test_of_a_line_that_is_too_long_nothing_is_kept(part):
    """What claims to be escapes is bounded, too."""
    line, kept = Unfinished(MIB), 0
    for _ in range(20):
        line.add(part * (MIB // len(part)))
        kept = max(kept, sum(map(len, line._parts)))
    assert line.line(0, 0).damage == "too long" and kept <= 12 * MIB


def test_a_line_of_100_mib_takes_no_memory(tmp_path):
    with (tmp_path / "x.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(100):
            file.write(b"a" * MIB)
        file.write(b'"}\n' + LINES[0])
    tracemalloc.start()
    texts, skipped = read(tmp_path / "x.jsonl", limit=8 * MIB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (texts, skipped) == ([ROWS[0]["text"]], {"too long": 1})
    assert peak < 24 * MIB


def test_a_frame_that_unpacks_to_600_mib_takes_no_memory(tmp_path):
    """20 kB of it on the disk; one read of 1 MiB must not unpack it whole."""
    path = tmp_path / "x.jsonl.zst"
    with zstandard.open(path, "wb") as file:
        file.write(b'{"text": "')
        for _ in range(600):
            file.write(b"a" * MIB)
        file.write(b'"}\n' + LINES[0])
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    texts, skipped = read(path, limit=8 * MIB)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (texts, skipped) == ([ROWS[0]["text"]], {"too long": 1})
    assert peak < 64 * MIB


@pytest.mark.parametrize("window", [20, 28, 31])
def test_frames_of_any_window_are_read(window, tmp_path):
    """As zstd --long=31 makes them; unknown in size, so that the window stands in the header."""
    parameters = zstandard.ZstdCompressionParameters(
        window_log=window, enable_ldm=False, hash_log=12, chain_log=12
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = compressor.compress(b"".join(LINES)) + compressor.flush()
    assert zstandard.get_frame_parameters(packed).window_size == 2**window
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(packed)
    assert read(path) == ([row["text"] for row in ROWS], {})


@pytest.mark.parametrize("form", ["jsonl.zst", "parquet"])
def test_a_document_of_50_mb_is_read_or_counted(form, tmp_path):
    """As [data] max_document_mib says; what stands around it is read either way."""
    rows = [ROWS[0], {"text": "0123456789" * 5_000_000, "meta": {}}, ROWS[1]]
    path = tmp_path / f"x.{form}"
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        lines = (json.dumps(row).encode() + b"\n" for row in rows)
        path.write_bytes(zstandard.compress(b"".join(lines)))
    wanted = [row["text"] for row in rows]
    assert read(path, limit=64 * MIB) == (wanted, {})
    assert read(path) == ([wanted[0], wanted[2]], {"too long": 1})
