"""Where a teacher comes from: the hub, ``.bin`` and GGUF files; what cannot teach is refused."""

import json
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
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig

from let_titan.checks import find_mistakes
from let_titan.collectives import gathered
from let_titan.disk import write_whole
from let_titan.errors import ConfigError, RunError
from let_titan.teacher import check_part, check_teacher, prepare_teacher, read_tokenizer
from let_titan.teacher.fetch import fetch_once
from let_titan.teacher.hub import download
from let_titan.train import LetTrainer
from tests.checkpoints import make
from tests.support import relative_error
from tests.teachers import BF16_ERROR, CONFIGS, load, tokens, untouched
from tests.world import run_world

TIMEOUT = timedelta(seconds=2)
GGUF = Path("assets/teachers/SmolLM2-135M-Instruct.Q4_1.gguf")  # scripts/fetch_teacher.py brings it


def test_bin_weights_are_converted_once(teachers, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "bin"
    model = AutoModelForCausalLM.from_pretrained(teachers / "llama")
    model.config.save_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    folder = prepare_teacher(str(source))
    assert folder.parent == tmp_path / "cache" and any(folder.glob("*.safetensors"))
    for found, wanted in zip(load(folder)(tokens()), untouched(teachers / "llama"), strict=True):
        assert relative_error(found, wanted) < 1e-5
    monkeypatch.setattr("let_titan.teacher.sources.convert_bin", pytest.fail)
    assert prepare_teacher(str(source)) == folder


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
    (tmp_path / "cache").touch()
    with pytest.raises(RunError, match=r"cache/.* cannot be written \((Not a d|File ex).*: make"):
        prepare_teacher("owner/name" if of_a_hub else str(source))


class Bomb:
    def __reduce__(self):
        return (Path("exploded").write_text, ("boom",))


def test_a_bin_file_that_would_run_code_is_refused(teachers, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "bin"
    CONFIGS["llama"].save_pretrained(source)
    torch.save({"model.norm.weight": Bomb()}, source / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot be read as weights only"):
        prepare_teacher(str(source))
    assert not Path("exploded").exists()
    assert not list((tmp_path / "cache").glob("*/config.json"))


def test_gguf_against_transformers_own_reading(tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    folder = prepare_teacher(str(GGUF))
    teacher = load(folder, ["last", 15], torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32
    )
    with torch.no_grad():
        states = model.eval()(tokens(), output_hidden_states=True).hidden_states
    for found, wanted in zip(teacher(tokens()), (states[-1], states[15]), strict=True):
        assert relative_error(found, wanted) < 2 * BF16_ERROR  # 30 blocks


def test_loading_draws_nothing_from_the_random_state(teachers, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "bin"
    model = AutoModelForCausalLM.from_pretrained(teachers / "opt")
    model.config.save_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    before = torch.random.get_rng_state()
    load(prepare_teacher(str(source)))(tokens())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_that_do_not_fit_are_named(teachers, tmp_path):
    folder = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(teachers / "llama")
    model.save_pretrained(folder)
    model.config.num_hidden_layers = 5
    model.config.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"model\.layers\.4\..* is missing"):
        load(folder)
    model.config.num_hidden_layers, model.config.intermediate_size = 4, 128
    model.config.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"mlp\..* has shape"):
        load(folder)


def test_a_weight_that_two_files_hold_is_refused(teachers, tmp_path):
    """Which of the two would be read depends on the order in which the folder lists them."""
    folder = tmp_path / "twice"
    shutil.copytree(teachers / "llama", folder)
    shutil.copy(folder / "model.safetensors", folder / "old-00001-of-00001.safetensors")
    with pytest.raises(ConfigError, match=r"more than one file of .*: leave only"):
        check_part(str(folder), ["last"])


def test_what_cannot_teach_is_refused(teachers, tmp_path):
    BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "bert")
    llama = str(teachers / "llama")
    for arguments, sentence in (
        ((str(tmp_path / "bert"), 64, [], 320), "not a causal language model"),
        ((llama, 256, [], 320), "longer than the teacher's context of 128"),
        ((llama, 64, [5], 320), "Teacher layer 5 does not exist"),
        ((llama, 64, [], 321), "knows 320 ids"),
        (("./nowhere", 64, [], 320), "does not exist"),
        ((str(tmp_path), 64, [], 320), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            check_teacher(*arguments)


def test_quantized_weights_are_refused_whether_the_config_says_so_or_not(teachers, tmp_path):
    """Read as they are stored, the values of FP8 weights are off by their scales."""
    folder = tmp_path / "fp8"
    shutil.copytree(teachers / "llama", folder)
    (file,) = folder.glob("*.safetensors")
    save_file(
        {
            name: value.to(torch.float8_e4m3fn) if "proj" in name else value
            for name, value in load_file(file).items()
        },
        file,
    )
    with pytest.raises(ConfigError, match=r"_proj\.weight' in .* is quantized \(torch\.float8"):
        check_part(str(folder), ["last"])
    # As scales are stored, in a dtype that safetensors has no torch dtype for
    file.write_bytes(file.read_bytes().replace(b"F8_E4M3", b"F8_E8M0"))
    with pytest.raises(ConfigError, match=r"^The teacher's .* is quantized \(.* without scales"):
        check_part(str(folder), ["last"])
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"is quantized \(fp8\), and here .* without scales"):
        check_teacher(str(folder), 64, [], 320)
