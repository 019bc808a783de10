"""Damaged data is skipped and counted, or stops with a sentence; a slow server is asked again."""

import http.server
import json
import threading
import tracemalloc
from collections import Counter
from unittest import mock

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import OfflineModeIsEnabled
from hypothesis import given, settings
from hypothesis import strategies as st

from let_titan.config import Data
from let_titan.data import remote
from let_titan.data.files import data_files
from let_titan.data.lanes import Corpus, Lane
from let_titan.data.loader import PileLoader
from let_titan.data.policy import Policy, policy_of
from let_titan.data.reading import read_file
from let_titan.errors import ConfigError

ROWS = [{"text": f"document {i} " * (1 + i % 7), "meta": {"pile_set_name": "ab"[i % 2]}}
        for i in range(400)]  # fmt: skip
LINES = [json.dumps(row).encode() + b"\n" for row in ROWS]
MIB = 2**20


def read(path, lanes=1, epochs=1, **policy):
    """Reads a corpus's epochs lane by lane: (texts, what was skipped)."""
    known, texts, skipped = [], [], Counter()

    def encode(batch):
        known.extend(batch)
        return [np.array([i]) for i in range(len(known) - len(batch), len(known))]

    for lane in range(lanes):
        corpus = Corpus(data_files(str(path)), read_file, encode, Policy(**policy))
        stream = Lane(corpus, lane, lanes, 1, infinite=epochs > 1)
        try:
            while (text := known[int(stream.next().ids[0])]) and stream.place.epoch < epochs:
                texts.append(text)
        except StopIteration:
            pass
        skipped += stream.skipped
    return texts, dict(skipped)


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


def test_sets_are_weighted_and_left_out(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"".join(LINES))
    weights = policy_of(Data(weights=["a:0", "b:2.5"]), validation=False).weights
    texts, _ = read(tmp_path / "x.jsonl", weights=weights, epochs=2)
    found = Counter(texts)
    assert set(found) == {row["text"] for row in ROWS if row["meta"]["pile_set_name"] == "b"}
    assert set(found.values()) == {4, 5, 6}  # 2 or 3 in each of two epochs, drawn anew
    assert sum(found.values()) == pytest.approx(200 * 5, rel=0.1)


def test_validation_by_hash_is_disjoint_and_all_there_is(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"".join(LINES + LINES))
    train, _ = read(tmp_path / "x.jsonl", held_out=0.25)
    held, _ = read(tmp_path / "x.jsonl", held_out=0.25, validation=True)
    assert not set(train) & set(held)
    assert sorted(train + held) == sorted(2 * [row["text"] for row in ROWS])
    assert len(held) == pytest.approx(200, rel=0.3)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"weights": ["Github"]}, "data.weights has 'Github'"),
        ({"weights": ["Github:-1"]}, "data.weights has 'Github:-1'"),
        ({"weights": ["Github:nan"]}, "data.weights has 'Github:nan'"),
        ({"weights": [":1"]}, "data.weights has ':1'"),
        ({"validation_fraction": 1.0}, "data.validation_fraction = 1.0"),
        ({"lanes": -1}, "data.lanes = -1"),
        ({"max_document_mib": 0}, "data.max_document_mib = 0"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(ConfigError) as error:
        policy_of(Data(**values), validation=False)
    assert message in str(error.value)


class Flaky(http.server.BaseHTTPRequestHandler):
    """Serves byte ranges; every second answer stalls, breaks off, or is an error of the server."""

    content = b""
    served = 0
    healthy_after = 0

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self):
        cls = type(self)
        cls.served += 1
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        body = self.content[first : last + 1]
        trouble = cls.served % 2 if cls.served < cls.healthy_after else 0
        kind = cls.served // 2 % 3 if trouble else None
        if kind == 0:
            self.send_error(503)
            return
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind is None:
            self.wfile.write(body)
            return
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        if kind == 1:
            threading.Event().wait(0.5)  # longer than the reader's patience

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    for name in ("RANGE", "CHUNK"):
        monkeypatch.setattr(f"let_titan.data.lines.{name}", 200)
    monkeypatch.setattr(Flaky, "content", zstandard.compress(b"".join(LINES)))
    monkeypatch.setattr(Flaky, "served", 0)
    monkeypatch.setattr(Flaky, "healthy_after", 10**9)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_stalls_and_breaks_off_is_asked_again(server):
    assert read(f"{server}/x.jsonl.zst") == ([row["text"] for row in ROWS], {})
    assert Flaky.served > 2 * len(Flaky.content) / 200 - 1


def test_a_dead_server_is_a_sentence_with_the_position(server, monkeypatch):
    files = data_files(f"{server}/x.jsonl.zst")

    def refuse(self):
        self.send_error(503)

    monkeypatch.setattr(Flaky, "do_GET", refuse)
    with pytest.raises(ConfigError, match=r"x\.jsonl\.zst cannot be read \(bytes 0 to.*503.*again"):
        list(read_file(files[0], 0, 0, MIB))
    monkeypatch.setattr(remote, "FIRST_WAIT", 60)  # what is not there is not waited for
    monkeypatch.setattr(Flaky, "do_HEAD", lambda self: self.send_error(404))
    with pytest.raises(ConfigError, match=r"tries: 1.*404"):
        data_files(f"{server}/x.jsonl.zst")


def test_after_a_dead_server_the_position_goes_on(server, monkeypatch):
    """The loader that failed knows where it stands: nothing is lost, and nothing read twice."""
    monkeypatch.setattr(Flaky, "healthy_after", 0)  # at first it answers well
    monkeypatch.setattr(Flaky, "content", b"".join(LINES))  # a zstd block would come at once
    monkeypatch.setattr("let_titan.data.lanes.TOKENISE_AT_ONCE", 500)  # and so would a portion
    options = {"rank": 0, "ranks": 1, "batch": 2, "seq_len": 31}

    def loader():
        files = data_files(f"{server}/x.jsonl")
        return PileLoader(Corpus(files, read_file, letters, Policy()), {}, **options)

    plain = iter(loader())
    wanted = [next(plain)[1].tolist() for _ in range(40)]
    works, answer = [16], Flaky.do_GET

    def dies(self):
        works[0] -= 1
        return answer(self) if works[0] >= 0 else self.send_error(503)

    monkeypatch.setattr(Flaky, "do_GET", dies)
    first, found = loader(), []
    with pytest.raises(ConfigError, match="goes on from the last checkpoint"):
        for batch in first:
            found.append(batch[1].tolist())
    assert 0 < len(found) < 40
    monkeypatch.setattr(Flaky, "do_GET", answer)
    again = loader()
    again.load_state_dict(first.state_dict())
    rest = iter(again)
    assert found + [next(rest)[1].tolist() for _ in range(40 - len(found))] == wanted


def letters(texts):
    return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) for text in texts]


def test_the_hub_is_listed_and_read_by_ranges(monkeypatch):
    """Through the calls that HfFileSystem has; every other range fails once."""
    content, calls = b"".join(LINES), Counter()

    def cat_file(path, start, end):
        calls[start] += 1
        if calls[start] == 1 and len(calls) % 2:
            raise ConnectionResetError("by peer")
        return content[start:end]

    hub = mock.create_autospec(HfFileSystem, instance=True)
    hub.glob.return_value = {
        "datasets/o/n/train/00.jsonl": {"size": len(content), "type": "file"},
        "datasets/o/n/train/more": {"size": 0, "type": "directory"},
    }
    hub.cat_file.side_effect = cat_file
    monkeypatch.setattr(remote, "hub", lambda: hub)
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    for name in ("RANGE", "CHUNK"):
        monkeypatch.setattr(f"let_titan.data.lines.{name}", 5000)
    pattern = "hf://datasets/o/n/train/*"
    (file,) = data_files(pattern)
    assert (file.path, file.size) == ("hf://datasets/o/n/train/00.jsonl", len(content))
    assert read(pattern) == ([row["text"] for row in ROWS], {})
    assert len(calls) == -(-len(content) // 5000) and max(calls.values()) == 2


def test_an_offline_hub_is_told_at_once(monkeypatch):
    hub = mock.create_autospec(HfFileSystem, instance=True)
    hub.glob.side_effect = OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    monkeypatch.setattr(remote, "hub", lambda: hub)
    monkeypatch.setattr(remote, "FIRST_WAIT", 3600)  # no waiting for what cannot come
    with pytest.raises(ConfigError, match=r"cannot be read \(listing it; tries: 1.*OFFLINE"):
        data_files("hf://datasets/nobody/nothing/*.jsonl")
