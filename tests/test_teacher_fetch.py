"""A teacher is fetched once: from the hub, into a cache that several nodes may fill."""

import multiprocessing
import shutil
import time
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoConfig, AutoModelForCausalLM

from let_titan.checks import find_mistakes
from let_titan.collectives import gathered
from let_titan.disk import write_whole
from let_titan.errors import ConfigError, RunError
from let_titan.teacher import prepare_teacher, read_tokenizer
from let_titan.teacher.fetch import fetch_once
from let_titan.teacher.hub import download
from let_titan.train import LetTrainer
from tests.checkpoints import make
from tests.support import files_up_to, relative_error
from tests.teachers import load, tokens, untouched
from tests.world import run_world

TIMEOUT = timedelta(seconds=2)


def play_hub(monkeypatch, tmp_path, answers: bool, snapshot: Path) -> list[dict]:
    """Lets ``snapshot`` be what the hub has of any id; returns the keywords it is asked with."""
    asked: list[dict] = []
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("let_titan.teacher.hub.answers", lambda: answers)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda checkpoint, **keywords: (asked.append(keywords), str(snapshot))[1],
    )
    return asked


@pytest.mark.parametrize("answers", [True, False])
def test_a_hub_id_is_fetched_once(answers, teachers, tmp_path, monkeypatch):
    asked = play_hub(monkeypatch, tmp_path, answers, teachers / "gpt2")
    folder = prepare_teacher("owner/name")
    for found, wanted in zip(load(folder)(tokens()), untouched(teachers / "gpt2"), strict=True):
        assert relative_error(found, wanted) < 1e-5
    assert prepare_teacher("owner/name") == folder
    (keywords,) = asked
    assert keywords["local_files_only"] is not answers
    wanted = ["config.json", "model.safetensors", "tokenizer.json"]
    other = ["consolidated.safetensors", "model.fp16.safetensors", "pytorch_model.bin"]
    other += ["original/model.safetensors", "onnx/config.json"]
    patterns = {name: keywords[name] for name in ("allow_patterns", "ignore_patterns")}
    assert list(filter_repo_objects([*wanted, *other], **patterns)) == wanted


def test_every_call_to_the_hub_has_the_revision(lab, assets, tmp_path, monkeypatch):
    """The teacher's configuration, tokenizer and weights are of one commit, which is told."""
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("ab" * 20)
    shutil.copytree(assets / "teacher", snapshot)
    for file in (assets / "tokenizer").iterdir():
        shutil.copy(file, snapshot)
    asked = play_hub(monkeypatch, tmp_path, True, snapshot)
    read = AutoConfig.from_pretrained

    def read_config(name, **keywords):
        if str(name) == "owner/name":
            asked.append(keywords)
            name, keywords = snapshot, {}
        return read(name, **keywords)

    def cached_file(checkpoint, name, **keywords):
        asked.append(keywords)
        return str(snapshot / name)

    monkeypatch.setattr("let_titan.teacher.sources.AutoConfig.from_pretrained", read_config)
    monkeypatch.setattr("let_titan.teacher.tokens.cached_file", cached_file)
    at = {"teacher__checkpoint": "owner/name", "teacher__revision": "v1.0"}
    for tokenizer in ("same", "align"):
        trainer = LetTrainer(lab.config({}, **at, teacher__tokenizer=tokenizer))
        trainer.phase.load()
        facts = trainer.phase.facts()
        trainer.close()
        assert facts["commit"] == "ab" * 20 and facts["name"] == "owner--name@v1.0"
    assert {keywords["revision"] for keywords in asked} == {"v1.0"} and len(asked) > 6
    (told,) = find_mistakes(lab.parsed({}, teacher__revision="v1.0"))
    assert "teacher.revision = 'v1.0' is of a hub id" in str(told)


def make_link(out, snapshot, start, told):
    """A node's first process: it sees no link, and makes one when the others do."""
    link = Path.symlink_to

    def slowly(path, *args, **options):  # as on a network's file system
        time.sleep(0.003)
        return link(path, *args, **options)

    Path.symlink_to = slowly
    with mock.patch("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot)):
        start.wait()
        try:
            download("owner/name", out, trust_remote_code=False, revision="")
            told.put("")
        except Exception as error:
            told.put(f"{type(error).__name__}: {error}")


def test_nodes_that_make_the_same_link_at_once_agree(tmp_path, monkeypatch):
    monkeypatch.setattr("let_titan.teacher.hub.answers", lambda: True)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "a.safetensors").touch()
    (snapshot / "config.json").write_text("{}")
    out = tmp_path / "cache" / "name"
    out.parent.mkdir()
    out.symlink_to(tmp_path / "gone")  # of another node's own disk
    fork = multiprocessing.get_context("fork")
    for _ in range(3):
        start, told = fork.Event(), fork.Queue()
        nodes = [fork.Process(target=make_link, args=(out, snapshot, start, told)) for _ in "123"]
        for node in nodes:
            node.start()
        start.set()
        assert [told.get(timeout=60) for _ in nodes] == ["", "", ""]
        for node in nodes:
            node.join()
    assert out.resolve() == snapshot and [path.name for path in out.parent.iterdir()] == ["name"]


def test_a_conversion_that_another_node_was_quicker_with_is_its_own(tmp_path):
    out = tmp_path / "teacher"

    def convert(folder):
        make(tmp_path, "teacher/config.json", "teacher/theirs")  # meanwhile
        (folder / "config.json").touch()

    write_whole(out, convert)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher"]
    assert (out / "theirs").exists()


def test_a_hub_out_of_reach_with_nothing_cached_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("let_titan.teacher.hub.answers", lambda: False)
    assert read_tokenizer("owner/name-that-nobody-has") is None
    with pytest.raises(ConfigError, match="cannot be downloaded"):
        prepare_teacher("owner/name-that-nobody-has")


def wait_and_fail(folder):
    """Rank 0 takes longer than a collective may; then it fails. Returns what each rank saw."""

    def slow(out):
        time.sleep(2 * TIMEOUT.total_seconds())
        out.mkdir()
        (out / "config.json").write_text("{}")

    def full(out):
        raise ConfigError("the disk is full: make room.")

    groups = len(dist.distributed_c10d._world.pg_names)
    dist.distributed_c10d._set_pg_timeout(TIMEOUT)
    fetch_once(folder / "slow", slow)
    told = ""
    try:
        fetch_once(folder / "full", full)
    except ConfigError as error:
        told = str(error)
    there = (folder / "slow" / "config.json").exists()
    return gathered((there, told, len(dist.distributed_c10d._world.pg_names) - groups))


def test_a_slow_fetch_outlasts_the_collectives_and_a_failure_is_every_ranks(tmp_path):
    seen = run_world(2, wait_and_fail, tmp_path, tmp_path)
    assert seen == [(True, "the disk is full: make room.", 0)] * 2


@pytest.mark.parametrize("of_a_hub", [True, False])
def test_a_cache_that_cannot_be_written_is_told(of_a_hub, teachers, tmp_path, monkeypatch):
    """Not as a download that failed: the network is fine."""
    source = tmp_path / "bin"
    model = AutoModelForCausalLM.from_pretrained(teachers / "llama")
    model.config.save_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    play_hub(monkeypatch, tmp_path, True, source)
    name = "owner/name" if of_a_hub else str(source)
    with (
        files_up_to(10_000),
        pytest.raises(RunError, match=r"cache/.* written \(.*too large.*: make"),
    ):
        prepare_teacher(name)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()
    with pytest.raises(RunError, match=r"cache/.* cannot be written \((Not a d|File ex).*: make"):
        prepare_teacher(name)
    (source / "model.safetensors").touch()
    with pytest.raises(RunError, match=r"cache/.* cannot be written"):  # nor a link be made
        prepare_teacher("owner/name")
