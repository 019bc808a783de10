"""A cache of the teacher's states: the run that reads it is the run that wrote it."""

import json
import os
import shutil
from types import NoneType
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file

from let_titan.checks import find_mistakes
from let_titan.collectives import gathered
from let_titan.errors import ConfigError, RunError
from let_titan.preflight import examine
from let_titan.preflight.gpus import GPUS
from let_titan.state_cache import StateFiles, lock
from let_titan.train import LetTrainer
from tests.conftest import make_teacher, make_tokenizer
from tests.layouts import FSDP, MICRO_2, PP, SHARD, TP
from tests.support import Lab, of_all_stages, weights
from tests.world import elsewhere, outside_the_world, run_world

WIDTH, SEQ_LEN, STEPS, S_STOP = 48, 64, 4, 3
MADE = {"training__steps": STEPS, "checkpoint__enable": True, "checkpoint__interval": 2}
FIGURES = ("loss", "align_loss", "align_cosine", "grad_norm", "lambda", "tokens")
LAYOUTS = {
    "pp": {**PP, "training__local_batch_size": 4, "let": {"s_stop": 2, "k": 4}},  # rank 1 has it
    "pp, both stages aligned": {
        **PP,
        "training__local_batch_size": 4,
        "let": {"s_stop": 2, "pairs": ["last:2:1.0", "middle:4:1.0"]},
    },
    "fsdp, accumulated": {**FSDP, **SHARD, **MICRO_2, "training__global_batch_size": 8},
    "tp": {**TP, "training__global_batch_size": 4},
    "tp, rows not divided": {**TP, "training__local_batch_size": 1},
}


def train(lab, folder, until=None, let=None, **changes):
    """Trains; returns (figures of each step, weights at the end, what the teacher was)."""
    keys = {"job__dump_folder": str(lab.folder / folder), **MADE, **changes}
    trainer = LetTrainer(lab.config({"s_stop": S_STOP, **(let or {})}, **keys))
    if until is not None:
        trainer.should_continue_training = lambda: trainer.step < until
    teachers = []
    release = trainer.phase.release

    def noting():
        held = [each for each in gathered(type(trainer.phase.slot.teacher)) if each is not NoneType]
        teachers.append(held[0])  # a pipeline's first rank may have none
        return release()

    trainer.phase.release = noting
    try:
        trainer.train()
        found = of_all_stages(weights, trainer)
    finally:
        trainer.close()
    text = (lab.folder / folder / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    figures = [{key: line[key] for key in FIGURES} for line in lines if "loss" in line]
    return figures, found, [each.__name__ for each in teachers]


def assert_equal(one, other, steps=STEPS):
    assert one[0] == other[0] and len(one[0]) == steps
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(value, other[1][name]) for name, value in one[1].items())


def three_pairs(dtype):
    let = {"teacher_norm": "center", "pairs": ["last:2:1.0", "1:3:0.5", "last:4:1.0"]}
    return {"let": let, "teacher__dtype": dtype}


@pytest.fixture(scope="module")
def live(assets, tmp_path_factory):
    """Runs without a cache, by the teacher's dtype."""
    lab = Lab(assets, tmp_path_factory.mktemp("live"))
    return {dtype: train(lab, dtype, **three_pairs(dtype)) for dtype in ("bfloat16", "float32")}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_run_that_reads_is_the_run_that_writes(dtype, live, lab, monkeypatch):
    keys = {**three_pairs(dtype), "teacher__cache": str(lab.folder / "cache")}
    live, writing = live[dtype], train(lab, "writing", **keys)
    monkeypatch.setattr("let_titan.let.teacher_slot.load_model", pytest.fail)
    reading = train(lab, "reading", **keys)
    assert [run[2] for run in (live, writing, reading)] == [
        ["Teacher"],
        ["WritingTeacher"],
        ["CachedTeacher"],
    ]
    assert_equal(writing, reading)
    if dtype == "bfloat16":
        assert_equal(live, writing)
    else:  # rounded, in all that the student sees of it
        assert live[0] != writing[0]
        for one, other in zip(live[0], writing[0], strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    facts = json.loads((lab.folder / "reading" / "summary.json").read_text())["teacher"]
    assert facts["placement"] == "cache" and facts["width"] == WIDTH
    assert facts["flops_per_token"] == facts["bytes"] == 0


@pytest.fixture(scope="module")
def filled(assets, tmp_path_factory):
    """The cache of a run of two steps with a teacher."""
    lab = Lab(assets, tmp_path_factory.mktemp("filled"))
    train(lab, "run", let={"s_stop": 2}, teacher__cache=str(lab.folder / "cache"))
    return lab.folder / "cache"


def test_a_shorter_run_reads_a_part_and_a_longer_one_adds_the_rest(filled, lab):
    shutil.copytree(filled, lab.folder / "cache")
    cache = {"teacher__cache": str(lab.folder / "cache")}
    assert train(lab, "shorter", let={"s_stop": 1}, **cache)[2] == ["CachedTeacher"]
    before = set((lab.folder / "cache").glob("*.safetensors"))
    added = train(lab, "longer", let={"s_stop": 3}, **cache)
    assert added[2] == ["WritingTeacher"]
    assert len(set((lab.folder / "cache").glob("*.safetensors")) - before) == 1
    read = train(lab, "again", let={"s_stop": 3}, **cache)
    assert read[2] == ["CachedTeacher"]
    assert_equal(added, read)


def test_a_resume_on_either_side(live, lab):
    """Stopped at a checkpoint while it writes, and while it reads."""
    keys = {**three_pairs("bfloat16"), "teacher__cache": str(lab.folder / "cache")}
    for name, teacher in (("writing", "WritingTeacher"), ("reading", "CachedTeacher")):
        train(lab, name, until=2, **keys)
        resumed = train(lab, name, **keys)
        assert resumed[2] == [teacher]
        assert_equal(resumed, live["bfloat16"])
    assert len(StateFiles(lab.folder / "cache", 0).rows) == 4 * S_STOP


def test_a_resume_that_reads_keeps_the_count_of_what_was_computed(lab):
    """Killed after its last states were written, before the next checkpoint."""
    cache = {"teacher__cache": str(lab.folder / "cache")}
    flops = []
    for until, teachers in ((3, ["WritingTeacher"]), (None, ["CachedTeacher"])):
        assert train(lab, "run", until=until, **cache)[2] == teachers
        lines = (lab.folder / "run" / "metrics.jsonl").read_text().splitlines()
        flops.append([x["teacher_flops"] for x in map(json.loads, lines) if "loss" in x])
    per_step = flops[0][0]
    assert flops[0] == [per_step * step for step in (1, 2, 3)]
    assert flops[1] == [per_step * step for step in (1, 2, 3, 3)]


SHORT = {"let": {"s_stop": 2}, "training__steps": 2, "checkpoint__enable": False}


def in_each_layout(assets, folder):
    """Trains writing and reading in each layout, live in one; returns the runs and rows written."""
    found = {}
    for name, layout in LAYOUTS.items():
        place = folder / name.replace(", ", "-")
        lab = Lab(assets, place)
        cache = {"teacher__cache": str(place / "cache")}
        keys = {"teacher__dtype": "bfloat16", **SHORT, **layout}
        caches = [*([{}] if name.startswith("fsdp") else []), cache, cache]
        runs = [train(lab, str(i), **keys, **each) for i, each in enumerate(caches)]
        written = sum(len(load_file(f)["last"]) for f in (place / "cache").glob("*.safetensors"))
        found[name] = runs, written
    return found


def test_on_two_ranks(assets, tmp_path):
    for name in LAYOUTS:
        (tmp_path / name.replace(", ", "-")).mkdir()
    sizes = {
        "pp": 4,
        "pp, both stages aligned": 4,
        "fsdp, accumulated": 8,
        "tp": 4,
        "tp, rows not divided": 1,
    }
    for name, (runs, written) in run_world(2, in_each_layout, tmp_path, assets, tmp_path).items():
        *live, writing, reading = runs
        assert (writing[2], reading[2]) == (["WritingTeacher"], ["CachedTeacher"]), name
        assert_equal(writing, reading, steps=2)
        for run in live:
            assert_equal(run, writing, steps=2)
        assert written == 2 * sizes[name]  # by one rank of those that hold the same rows


def told(lab, cache, *args, **changes):
    config = lab.parsed({"s_stop": 2}, *args, teacher__cache=str(cache), **{**MADE, **changes})
    return " ".join(map(str, find_mistakes(config)))


def test_another_runs_cache_is_refused_by_name(filled, lab):
    assert told(lab, filled) == ""
    folder = lab.folder
    make_teacher(folder / "teacher", 320, context=127)  # other weights are another file, too
    make_tokenizer(folder / "tokenizer", 300)
    shutil.copy(lab.assets / "train.jsonl", folder / "more.jsonl")
    for changes, sentence in (
        ({"teacher__checkpoint": str(folder / "teacher")}, "there the teacher's weights is"),
        ({"model__hf_assets_path": str(folder / "tokenizer")}, "there the tokenizer is"),
        ({"training__dataset_path": str(folder / "more.jsonl")}, "training.dataset_path is"),
        ({"data__shuffle_buffer": 8}, "the order of the data (data.shuffle_buffer) is 0, here 8"),
        ({"data__lanes": 2}, "at its start) is 1, here 2"),
        ({"training__seq_len": 32}, "training.seq_len is 64, here 32"),
        ({"teacher__layer": 2}, "the teacher's layers is ['last'], here ['2']"),
        ({"data__document_attention": True}, "data.document_attention is False, here True"),
        ({"teacher__dtype": "bfloat16"}, "teacher.dtype is 'float32', here 'bfloat16'"),
    ):
        assert sentence in told(lab, filled, **changes), sentence
    rowwise = "--quantize.linear.float8.recipe_name=rowwise"
    for recipe, name in ([], "tensorwise"), ([rowwise], "rowwise"):
        float8 = ["--teacher.float8", "--quantize.linear.float8.emulate", *recipe]
        assert f"teacher.float8 is '', here '{name}'" in told(lab, filled, *float8)
    assert "holds other things than a cache" in told(lab, lab.assets)


def test_what_it_does_not_go_with(lab):
    cache = lab.folder / "cache"
    assert 'needs teacher.tokenizer = "same"' in told(lab, cache, "--teacher.tokenizer", "align")
    c4 = told(lab, cache, training__dataset="c4_test", training__dataset_path="x")
    assert "needs training.dataset = 'pile'" in c4
    gone = told(lab, cache, training__dataset_path="nowhere/*.jsonl")
    assert gone.count("matches no file") == 1  # and nobody looks again for the cache's sake


def test_one_run_at_a_time_writes(filled, lab):
    cache = lab.folder / "cache"
    cache.mkdir()
    shutil.copy(filled / "key.json", cache)
    with elsewhere(lock, cache), pytest.raises(ConfigError, match="written by another run"):
        train(lab, "run", let={"s_stop": 2}, teacher__cache=str(cache))
    no_locks = OSError(38, "not implemented")
    with mock.patch("let_titan.state_cache.open.fcntl.lockf", side_effect=no_locks):
        os.close(lock(cache))  # of a file system without locks
    with (
        mock.patch("let_titan.state_cache.open.os.open", side_effect=PermissionError(13, "denied")),
        pytest.raises(RunError, match="cannot be written"),
    ):
        lock(cache)
    assert train(lab, "run", let={"s_stop": 2}, teacher__cache=str(cache))[2] == ["WritingTeacher"]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_named(damage, filled, lab):
    cache = lab.folder / "cache"
    shutil.copytree(filled, cache)
    path = sorted(cache.glob("*.safetensors"))[1]
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data if damage == "flipped" else data[:-1])
    if damage == "gone":
        path.unlink()
    with pytest.raises(RunError, match=rf"{path.name}.* missing or not as written"):
        train(lab, "run", let={"s_stop": 2}, teacher__cache=str(cache))


def test_a_line_that_a_kill_cut_short_is_written_anew(filled, lab):
    cache = lab.folder / "cache"
    shutil.copytree(filled, cache)
    (manifest,) = cache.glob("rank-*.jsonl")
    whole = StateFiles(filled, 0).rows
    manifest.write_text(manifest.read_text()[:-5])
    assert len(StateFiles(cache, 0).rows) == len(whole) // 2
    again = train(lab, "run", let={"s_stop": 2}, teacher__cache=str(cache))
    assert again[2] == ["WritingTeacher"]
    assert StateFiles(cache, 0).rows == whole


def test_states_are_the_teachers_by_number(filled, lab):
    files = StateFiles(filled, 0)
    forth, back = (
        torch.stack(files.read(order, ["last"])[0]) for order in ([*range(8)], [*range(7, -1, -1)])
    )
    assert forth.shape == (8, SEQ_LEN, WIDTH) and forth.dtype == torch.bfloat16
    assert torch.equal(forth, back.flip(0)) and not torch.equal(forth[0], forth[1])


def test_preflight_tells_its_bytes(filled, lab):
    config = lab.parsed({"s_stop": 2}, teacher__cache=str(filled))
    with outside_the_world():
        price = examine(config, 1, GPUS["a100"]).price
    stored = sum(load_file(f)["last"].nbytes for f in filled.glob("*.safetensors"))
    assert price["teacher_cache"]["bytes"] == stored
    assert price["teacher_cache"]["bytes_per_token"] == 2 * WIDTH


def test_a_run_that_aligns_nothing_leaves_a_cache_alone(lab):
    """The zero arm of a sweep over lambda_0, whose arms share a cache."""
    off = {"lambda_0": 0.0}
    plain, cached = train(lab, "plain", let=off), lab.folder / "cache"
    assert_equal(train(lab, "off", let=off, teacher__cache=str(cached)), plain)
    assert not cached.exists()
