"""The files of a cache of states: what was written is read; whose it is."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError

from let_titan.errors import ConfigError, RunError
from let_titan.state_cache import (
    CachedTeacher,
    StateFiles,
    begin_cache,
    check_cache,
    files,
    key,
    lock,
)
from let_titan.train import LetTrainer
from tests.world import elsewhere

LAYERS = ["2", "last"]


def drawn(n):
    return {layer: torch.randn(n, 3, 5).bfloat16() for layer in LAYERS}


def test_what_two_ranks_wrote_is_read_in_any_order(tmp_path):
    ranks = [StateFiles(tmp_path, rank) for rank in (0, 1)]
    written = {}
    for sequences, rank in (([4, 7], 0), ([5, 6], 1), ([9], 0)):
        states = drawn(len(sequences))
        ranks[rank].write(sequences, states)
        for row, number in enumerate(sequences):
            written[number] = [states[layer][row] for layer in LAYERS]
    assert ranks[0].missing([4, 5, 7, 9]) == 1  # what the other has written since is not known
    reader, order = StateFiles(tmp_path, 2), [9, 5, 4, 7, 6]
    assert reader.missing(range(4, 11)) == 2
    for layer, found in enumerate(reader.read(order, LAYERS)):
        for number, states in zip(order, found, strict=True):
            assert torch.equal(states, written[number][layer])


def test_a_line_is_written_after_one_that_a_kill_cut_short(tmp_path):
    writer, manifest = StateFiles(tmp_path, 0), tmp_path / "rank-00000.jsonl"
    for number in range(3):
        writer.write([number], drawn(1))
    manifest.write_text(manifest.read_text()[:-1])  # its newline alone: the line counts
    assert StateFiles(tmp_path, 0).rows == writer.rows
    writer.write([3], drawn(1))
    manifest.write_text(manifest.read_text()[:-9])
    writer.write([4], drawn(1))
    assert StateFiles(tmp_path, 0).rows.keys() == {0, 1, 2, 4}
    assert manifest.read_text().count("\n") == 5


def test_a_file_is_summed_once(tmp_path, monkeypatch):
    StateFiles(tmp_path, 0).write([0, 1, 2], drawn(3))
    reader, summed, checksum = StateFiles(tmp_path, 0), [], files.checksum
    monkeypatch.setattr(files, "checksum", lambda path: summed.append(path) or checksum(path))
    for _ in range(2):
        reader.read([2, 0, 1], LAYERS)
    assert len(summed) == 1


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(tensors, path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(RunError, match=r"cannot be written.*No space left on device"):
        StateFiles(tmp_path, 0).write([0], drawn(1))


def test_a_lost_file_is_told_on_the_rank_that_reads_it(tmp_path, monkeypatch, capsys):
    writer = StateFiles(tmp_path, 0)
    writer.write([0], drawn(1))
    next(tmp_path.glob("*.safetensors")).unlink()
    teacher = CachedTeacher(writer, ["last"], torch.device("cpu"), torch.float32)
    teacher.expect([0])
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(RunError, match="missing or not as written"):
        teacher(torch.zeros(1, 3))
    assert "missing or not as written" in capsys.readouterr().err


def test_a_cache_is_begun_where_no_folder_is_and_keeps_its_key(tmp_path):
    folder, key = tmp_path / "caches" / "mine", {"lanes": 2, "seq_len": 64}
    check_cache(folder, key)
    begin_cache(folder, key)
    begin_cache(folder, {**key, "lanes": 3})
    check_cache(folder, key)
    other = {**key, "lanes": 3}
    check_cache(folder, other, unknown=["lanes"])  # a resume's, until its checkpoint is read
    with pytest.raises(ConfigError, match=r"data\.lanes, .* is 2, here 3"):
        check_cache(folder, other)
    with pytest.raises(ConfigError, match=r"training\.seq_len is 64, here 32"):
        check_cache(folder, {**other, "seq_len": 32}, unknown=["lanes"])


def test_another_run_may_write_once_the_teacher_has_left(lab):
    cache = lab.folder / "cache"
    trainer = LetTrainer(lab.config({"s_stop": 1}, training__steps=2, teacher__cache=str(cache)))
    release, begun = trainer.phase.release, []

    def and_another_begins():
        memory = release()
        with elsewhere(lock, cache) as process:
            begun.append(process)
        return memory

    trainer.phase.release = and_another_begins
    try:
        trainer.train()
    finally:
        trainer.close()
    assert len(begun) == 1


def test_another_run_may_write_once_a_trainer_is_closed(lab):
    cache = lab.folder / "cache"
    trainer = LetTrainer(lab.config({}, teacher__cache=str(cache)))
    trainer._begin(0)
    trainer.close()
    with elsewhere(lock, cache):
        assert trainer.phase.slot.teacher is not None  # it is still there


def test_what_is_no_cache_is_told(tmp_path):
    check_cache(tmp_path, {"lanes": 2})
    key = tmp_path / "key.json"
    for content in ("{", "[]", "{}"):  # cut short, or of another version
        key.write_text(content)
        with pytest.raises(ConfigError, match="is damaged or of another version"):
            check_cache(tmp_path, {"lanes": 2})
    key.rename(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="holds other things than a cache"):
        check_cache(tmp_path, {"lanes": 2})
    with pytest.raises(RunError, match="cannot be written"):
        begin_cache(tmp_path / "other.json" / "cache", {"lanes": 2})


def test_the_key_is_the_same_in_every_process(tmp_path, monkeypatch):
    """A set of names has another order in each, and a folder another on each file system."""
    layers = ["last", 3, 1, "middle", 5, 2]
    plan = SimpleNamespace(pairs=[SimpleNamespace(layer=layer) for layer in layers])
    monkeypatch.setattr(key, "read_config", lambda *_: SimpleNamespace(num_hidden_layers=8))
    assert key.layers_of(plan, tmp_path, False) == ["1", "2", "3", "4", "5", "last"]
    for name in ("config.json", "a.safetensors", "b.safetensors"):
        (tmp_path / name).write_text(name)
    digest, glob = key.teacher_digest.__wrapped__, Path.glob
    wanted = digest(tmp_path)
    for order in (sorted, lambda paths: sorted(paths, reverse=True)):
        monkeypatch.setattr(Path, "glob", lambda *args, order=order: order(glob(*args)))
        assert digest(tmp_path) == wanted
