"""A slow, broken or dead server, and the hub: asked again, then told of, and nothing lost."""

import http.server
import threading
from collections import Counter
from unittest import mock

import pytest
import zstandard
from huggingface_hub import HfFileSystem
from huggingface_hub.errors import OfflineModeIsEnabled

from let_titan.data import remote
from let_titan.data.corpus import Corpus
from let_titan.data.files import data_files
from let_titan.data.loader import PileLoader
from let_titan.data.policy import Policy
from let_titan.data.reading import read_file
from let_titan.errors import ConfigError
from tests.pile_rows import LINES, MIB, ROWS, letters, read


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


def test_a_query_is_no_part_of_the_name(server):
    address = f"{server}/x.jsonl.zst?signature=a/b.parquet"
    assert data_files(address)[0].name == "x.jsonl.zst"
    assert read(address) == ([row["text"] for row in ROWS], {})


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
