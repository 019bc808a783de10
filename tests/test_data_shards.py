"""Token shards hold what the text holds, whatever is asked of it; damage and mixing are told."""

import itertools
import json
import resource
import shutil
import signal
import subprocess
import sys

import pyarrow.ipc
import pytest
import zstandard

from let_titan.build_data import build_dataloader, build_validation_dataloader
from let_titan.data.lines import Line
from let_titan.data.shards import Header, ShardWriter, open_shard, read_header, read_shard
from let_titan.data.tokenize import main
from let_titan.errors import ConfigError
from let_titan.teacher import read_encoder
from let_titan.tokenizer.build import load_tokenizer
from tests.conftest import TEXTS
from tests.support import cut_documents

BAD = b'{"text": 3}\n\n{"text": "\xff"}\n'


@pytest.fixture
def corpus(lab):
    """Three files of text with bad lines, sets, and sizes of their own; and their shards."""
    folder = lab.folder / "text"
    folder.mkdir()
    rows = [
        {"text": f"{i} {text}", "meta": {"pile_set_name": f"Set {i % 3}"}}
        for i, text in enumerate(TEXTS * 30)
    ]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    (folder / "a.jsonl").write_bytes(b"".join(lines[:40]))
    (folder / "b.jsonl.zst").write_bytes(
        zstandard.compress(BAD.join(b"".join(lines[i : i + 90]) for i in range(40, 3010, 90)))
    )
    (folder / "c.jsonl").write_bytes(BAD + b"".join(lines[3010:]))
    return lab


def tokenize(lab, *options):
    tokenizer = ["--tokenizer", str(lab.assets / "tokenizer")]
    return main([f"{lab.folder}/text/*", *tokenizer, "--out", f"{lab.folder}/shards", *options])


def test_a_full_disk_is_one_sentence_and_leaves_no_torn_file(corpus):
    """The system lets a process write no file above a size."""
    small = (resource.RLIMIT_FSIZE, (10_000, 10_000))
    command = [sys.executable, "-m", "let_titan.data.tokenize", f"{corpus.folder}/text/*"]
    command += ["--tokenizer", str(corpus.assets / "tokenizer"), "--out", f"{corpus.folder}/shards"]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(*small)
    )
    told = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert told.startswith("let_titan: ") and "b.jsonl.zst.arrow cannot be written (" in told
    assert "File too large): make room" in told
    assert [file.name for file in (corpus.folder / "shards").iterdir()] == ["a.jsonl.arrow"]


def config(lab, pattern, **data):
    return lab.config(
        None,
        training__dataset_path=str(pattern),
        training__local_batch_size=3,
        **{f"data__{key}": value for key, value in data.items()},
    )


def batches(lab, pattern, count, build=build_dataloader, state=None, ranks=2, **data):
    """Returns rank 1's rows, and its state after them."""
    tokenizer = load_tokenizer(str(lab.assets / "tokenizer"))
    loader = build(ranks, 1, tokenizer, config(lab, pattern, **data))
    loader.load_state_dict(state or {})
    rows = [labels.tolist() for _, labels in itertools.islice(loader, count)]
    return rows, loader.state_dict()


ALL = {
    "lanes": 6,
    "shuffle_buffer": 100,
    "weights": ["Set 0:0", "Set 1:1.5"],
    "validation_fraction": 0.2,
}


@pytest.mark.parametrize("data", [{}, {"lanes": 3}, ALL], ids=["plain", "3 lanes", "all keys"])
def test_the_same_tokens_as_the_text(data, corpus):
    assert tokenize(corpus) == 0
    text, shards = f"{corpus.folder}/text/*", f"{corpus.folder}/shards/*.arrow"
    wanted, state = batches(corpus, text, 400, **data)
    found, shard_state = batches(corpus, shards, 400, **data)
    assert found == wanted and len(found) == 400
    places = json.loads(state["position"])["places"]
    assert any(place["epoch"] > 0 for place in places.values())

    for pattern, position in ((text, state), (shards, shard_state)):
        merged = with_all_lanes(position)
        first, _ = batches(corpus, pattern, 5, state=merged, **data)
        again, _ = batches(corpus, pattern, 5, state=merged, **data)
        assert first == again
    after_text, _ = batches(corpus, text, 5, state=with_all_lanes(state), **data)
    after_shards, _ = batches(corpus, shards, 5, state=with_all_lanes(shard_state), **data)
    longer, _ = batches(corpus, text, 405, **data)
    assert after_text == after_shards == longer[400:]


def with_all_lanes(state):
    """Rank 1's state with places for the lanes of rank 0, which rank 1 never looks at."""
    position = json.loads(state["position"])
    some = next(iter(position["places"].values()))
    position["places"] = {str(i): some for i in range(position["lanes"])} | position["places"]
    return {"position": json.dumps(position)}


def test_validation_by_hash_from_either(corpus):
    tokenize(corpus)
    keys = {"validation_fraction": 0.2}
    rows = []
    for pattern in (f"{corpus.folder}/text/*", f"{corpus.folder}/shards/*"):
        settings = config(corpus, pattern, **keys)
        settings.validation.dataset = "pile"
        settings.validation.dataset_path = pattern
        settings.validation.seq_len = 64
        tokenizer = load_tokenizer(str(corpus.assets / "tokenizer"))
        loader = build_validation_dataloader(tokenizer, settings)
        rows.append([labels.tolist() for _, labels in itertools.islice(loader, 9)])
    assert rows[0] == rows[1]


def test_a_shard_is_an_arrow_file_of_the_smallest_type(corpus, capsys):
    tokenize(corpus)
    assert "documents: 3,600" in capsys.readouterr().out
    path = f"{corpus.folder}/shards/b.jsonl.zst.arrow"
    with pyarrow.ipc.open_file(path) as file:
        table = file.read_all()
    assert str(table.schema.field("tokens").type.value_type) == "uint16"
    tokenizer = load_tokenizer(str(corpus.assets / "tokenizer"))
    for row in (0, 255, 256, 2969):
        text = f"{row + 40} {(TEXTS * 30)[row + 40]}"
        wanted = tokenizer.encode(text, add_bos=True, add_eos=True)
        assert table["tokens"][row].as_py() == wanted
        line = next(read_shard(path, row))
        assert isinstance(line, Line) and line.data.tokens.tolist() == wanted
        assert (line.number, line.end) == (table["line"][row].as_py(), row + 1)
    assert read_header(path).source_size == (corpus.folder / "text" / "b.jsonl.zst").stat().st_size


def test_another_tokenizer_or_other_keys_are_refused(corpus):
    tokenize(corpus)
    shards = f"{corpus.folder}/shards/*.arrow"
    with pytest.raises(ConfigError, match="made with add_bos = True, and now it is False"):
        batches(corpus, shards, 1, add_bos=False)
    assert tokenize(corpus, "--no-add-eos") == 2
    tokenizer = load_tokenizer("assets/teachers/smollm2-135m")
    with pytest.raises(ConfigError, match="made with tokenizer = "):
        build_dataloader(1, 0, tokenizer, config(corpus, shards))


@pytest.mark.parametrize("where", ["first", "middle", "last", "cut"])
def test_damage_is_found_where_it_is_read(where, corpus):
    tokenize(corpus)
    path = corpus.folder / "shards" / "b.jsonl.zst.arrow"
    data = bytearray(path.read_bytes())
    table = pyarrow.ipc.open_file(pyarrow.py_buffer(bytes(data))).get_batch(1)
    values = table.column("tokens").values.to_numpy().tobytes()
    begin = bytes(data).index(values)
    at = {"first": 0, "middle": len(values) // 2, "last": len(values) - 1}.get(where)
    if at is None:
        del data[-100:]
    else:
        data[begin + at] ^= 1
    path.write_bytes(data)
    open_shard.cache_clear()
    message = "not a whole token shard" if at is None else "checksum of batch 1 is wrong"
    with pytest.raises(ConfigError, match=rf"b\.jsonl\.zst\.arrow.*{message}.*tokenize"):
        list(read_shard(str(path), 0))


KILLED = """
import os, signal, sys
from let_titan.data import shards, tokenize
flush, count = shards.ShardWriter._flush, 0
def until_killed(writer):
    global count
    flush(writer)
    count += 1
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)
shards.ShardWriter._flush = until_killed
tokenize.main(sys.argv[1:])
"""


def test_a_killed_run_goes_on_and_leaves_the_same(corpus):
    """Killed in the second shard's second batch; then the same command again."""
    tokenize(corpus)
    wanted = {path.name: path.read_bytes() for path in (corpus.folder / "shards").iterdir()}
    other = corpus.folder / "killed"
    args = [f"{corpus.folder}/text/*", "--tokenizer", str(corpus.assets / "tokenizer")]
    args += ["--out", str(other)]
    process = subprocess.run([sys.executable, "-c", KILLED, *args], stderr=subprocess.DEVNULL)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in other.glob("*.arrow")] == ["a.jsonl.arrow"]
    before = (other / "a.jsonl.arrow").stat().st_mtime_ns
    assert main(args) == 0
    assert {path.name: path.read_bytes() for path in other.iterdir()} == wanted
    assert (other / "a.jsonl.arrow").stat().st_mtime_ns == before


def test_a_shard_is_written_by_one_process_at_a_time(corpus, capsys):
    """A second one would cut the first one's file under its hands."""
    folder = corpus.folder / "shards"
    folder.mkdir()
    header = Header("c.jsonl", 1, "sha", 320, True, True, 16)
    with pytest.raises(KeyboardInterrupt), ShardWriter(folder / "c.jsonl.arrow", header):
        assert tokenize(corpus) == 2
        raise KeyboardInterrupt
    assert "c.jsonl.arrow is being written by another process: let it" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["a.jsonl.arrow", "b.jsonl.zst.arrow"]
    assert tokenize(corpus) == 0


def test_bad_input_is_a_sentence(corpus, capsys):
    assert tokenize(corpus, "--bad-lines", "stop") == 2
    assert "line" in capsys.readouterr().err
    assert not list((corpus.folder / "shards").glob("c*.arrow"))


def test_shards_are_not_tokenised_again(corpus, capsys):
    """They would become shards of empty documents."""
    tokenize(corpus)
    tokenizer = ["--tokenizer", str(corpus.assets / "tokenizer")]
    again = ["--out", str(corpus.folder / "again")]
    assert main([f"{corpus.folder}/*/[ac]*", *tokenizer, *again]) == 2
    assert "a.jsonl.arrow' is a token shard, which" in capsys.readouterr().err
    assert not (corpus.folder / "again").exists()


def test_shards_in_another_order_than_the_text_are_told(corpus, capsys):
    """Of several folders: read one after the other as text, and by name as shards of one folder."""
    for old, new in (("a", "a/z"), ("c", "b/y")):
        path = corpus.folder / "n" / f"{new}.jsonl"
        path.parent.mkdir(parents=True)
        (corpus.folder / "text" / f"{old}.jsonl").rename(path)
    common = ["--tokenizer", str(corpus.assets / "tokenizer"), "--out"]
    assert main([f"{corpus.folder}/n/*/*", *common, f"{corpus.folder}/one"]) == 0
    assert "in another order" in capsys.readouterr().err
    for folder in "ab":
        out = f"{corpus.folder}/each/{folder}"
        assert main([f"{corpus.folder}/n/{folder}/*", *common, out]) == 0
    assert "in another order" not in capsys.readouterr().err
    patterns = ("n/*/*", "each/*/*", "one/*")
    text, each, one = (batches(corpus, f"{corpus.folder}/{p}", 9, ranks=2)[0] for p in patterns)
    assert text == each != one


def test_a_tokenizer_that_cuts_documents_is_refused_and_a_teachers_read_without(corpus, capsys):
    cuts = corpus.folder / "cuts"
    shutil.copytree(corpus.assets / "tokenizer", cuts)
    cut_documents(cuts)
    assert tokenize(corpus, "--tokenizer", str(cuts)) == 2
    assert "has a truncation, which would change every document" in capsys.readouterr().err
    assert not (corpus.folder / "shards").exists()
    assert tokenize(corpus, "--teacher-tokenizer", str(cuts)) == 0
    shard = corpus.folder / "shards" / "a.jsonl.arrow"
    assert read_header(str(shard)).teacher_tokenizer == read_encoder(str(cuts)).fingerprint
    read = [line.data for line in read_shard(str(shard), 0)]
    assert len(read) == 40 and all(
        list(each.teacher_tokens) == list(each.tokens[1:-1]) for each in read
    )


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_torn_tokenizer_and_a_file_for_a_folder_are_sentences(file, corpus, capsys):
    shutil.copytree(corpus.assets / "tokenizer", corpus.folder / "torn")
    (corpus.folder / "torn" / file).write_text("{")
    assert tokenize(corpus, "--tokenizer", str(corpus.folder / "torn")) == 2
    assert "torn' holds a tokenizer that cannot be read (" in capsys.readouterr().err
    (corpus.folder / "shards").touch()
    assert tokenize(corpus) == 2
    assert "shards' can be no folder, since a file stands in the way" in capsys.readouterr().err


def test_memory_is_given_back_while_shards_are_made(corpus, monkeypatch):
    """What a call gives back is held in test_lean_start.py."""
    told = []
    for name in ("give_back_large_blocks", "give_back_free_pages"):
        monkeypatch.setattr(f"let_titan.data.tokenize.{name}", lambda name=name: told.append(name))
    assert tokenize(corpus) == 0
    assert told[0] == "give_back_large_blocks"
    assert len(told) > 3 and set(told[1:]) == {"give_back_free_pages"}  # three files and more
