"""Export when training ends, by a key; and of what was saved in several layouts."""

import gc
import json
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from let_titan.checks import exported_folder, find_mistakes, last_checkpoint
from let_titan.export.at_end import export_at_end
from let_titan.export.folder import export
from let_titan.export.source import find_source
from let_titan.run.folder import RunFolder
from let_titan.train import LetTrainer, main
from tests.exported import same_logits, student
from tests.support import Lab, of_all_stages, weights
from tests.world import free_port, run_world

STEPS = 2
SAVED = {"checkpoint__enable": True, "training__steps": STEPS, "training__local_batch_size": 2}
EXPORTED = {**SAVED, "export__enable": True}
LAYOUTS = {
    "fsdp": {
        "parallelism__data_parallel_shard_degree": -1,
        "checkpoint__last_save_model_only": True,
    },
    "tp": {"parallelism__tensor_parallel_degree": 2},
    "pp": {"parallelism__pipeline_parallel_degree": 2},
}


def saved_untrained(lab, **layout):
    """Saves step 0 of the debug student, from the same seed in every layout."""
    trainer = LetTrainer(lab.config(None, **SAVED, **layout))
    trainer.run_folder.begin(0, None)
    trainer.checkpointer.save(0, last_step=True)
    trainer.run_folder.end("completed")
    trainer.close()


def trained_by_main(lab, port, **layout):
    """Trains as torchrun would; returns the weights at the end, of all ranks' stages."""
    seen, close = {}, LetTrainer.close

    def look(trainer):
        seen.update(of_all_stages(weights, trainer))
        close(trainer)

    lab.config({"s_stop": 1}, **EXPORTED, **layout)  # writes the file
    LetTrainer.close = look
    try:
        main(["--job.config_file", str(lab.folder / f"run-{os.environ['RANK']}.toml")])
    finally:
        LetTrainer.close = close
    assert not dist.is_initialized()  # nobody waits for the export
    os.environ["MASTER_PORT"] = str(port)
    dist.init_process_group("gloo")
    gc.collect()
    return seen


def in_each_layout(assets, folder, ports):
    found = {}
    for port, (name, layout) in zip(ports, LAYOUTS.items(), strict=True):
        for kind in ("untrained", "trained"):
            (folder / f"{name}-{kind}").mkdir(exist_ok=True)
        saved_untrained(Lab(assets, folder / f"{name}-untrained"), **layout)
        found[name] = trained_by_main(Lab(assets, folder / f"{name}-trained"), port, **layout)
    return found


@pytest.fixture(scope="module")
def two_ranks(assets, tmp_path_factory):
    """Runs of each layout; returns {layout: trained weights} and the folder of the runs."""
    folder = tmp_path_factory.mktemp("layouts")
    ports = [free_port() for _ in LAYOUTS]
    return run_world(2, in_each_layout, folder, assets, folder, ports), folder


@pytest.fixture(scope="module")
def one_process(assets, tmp_path_factory):
    """The tensors that are exported of the same untrained student by one process."""
    folder = tmp_path_factory.mktemp("one")
    saved_untrained(Lab(assets, folder))
    export(find_source(folder / "run"), folder / "hf")
    return load_file(folder / "hf" / "model.safetensors")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_layout_saved_is_exported_as_by_one_process(
    layout, two_ranks, one_process, tmp_path
):
    export(find_source(two_ranks[1] / f"{layout}-untrained" / "run"), tmp_path / "hf")
    found = load_file(tmp_path / "hf" / "model.safetensors")
    assert found.keys() == one_process.keys()
    for name, wanted in one_process.items():
        assert torch.equal(found[name], wanted), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_key_exports_the_trained_student(layout, two_ranks):
    trained, folder = two_ranks
    run = folder / f"{layout}-trained" / "run"
    model = student("debug")
    before = model.state_dict()["layers.1.attention.wq.weight"].clone()
    model.load_state_dict(trained[layout])
    assert not torch.equal(before, model.state_dict()["layers.1.attention.wq.weight"])
    assert same_logits(model, run / "export" / f"step-{STEPS}")
    record = json.loads((run / "export" / f"step-{STEPS}" / "let_titan.json").read_text())
    assert (record["step"], record["exit_state"]) == (STEPS, "completed")
    assert (run / "checkpoint" / f"step-{STEPS}" / ".metadata").is_file()


def again(folder, capsys):
    """Starts the finished run of ``folder`` anew, alone; returns the exit code and stderr."""
    dist.destroy_process_group()
    try:
        main(["--job.config_file", str(folder / "run-0.toml")])
        code = 0
    except SystemExit as stop:
        code = stop.code
    finally:
        dist.is_initialized() and dist.destroy_process_group()
        os.environ["MASTER_PORT"] = str(free_port())
        dist.init_process_group("gloo")
    return code, capsys.readouterr().err


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_export_that_fails_is_a_sentence_and_is_made_up_for(
    assets, tmp_path, capsys, monkeypatch
):
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(assets / "tokenizer", tokenizer)
    lab = Lab(assets, tmp_path)
    changes = {"model__hf_assets_path": str(tokenizer), "export__dtype": "bfloat16"}
    config = lab.config(None, **EXPORTED, **changes)
    out, checkpoint = exported_folder(config), last_checkpoint(config)
    (tmp_path / "run").mkdir()
    out.parent.symlink_to(tmp_path / "nowhere" / "export")  # cannot be made: a full disk's stand-in
    code, told = again(tmp_path, capsys)
    assert code == 1 and f"{checkpoint} is as it was saved, but its export failed" in told
    assert "Traceback" not in told
    saved = contents(checkpoint)
    out.parent.unlink()
    assert again(tmp_path, capsys)[0] == 0  # nothing is trained: the export alone
    assert contents(checkpoint) == saved and (out / "config.json").is_file()
    made = contents(out)
    assert {x.dtype for x in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert again(tmp_path, capsys)[0] == 0 and contents(out) == made
    aside = out.rename(tmp_path / "aside")
    # Neither a rank that is not the first exports, nor a run that trains nothing.
    for rank, seed in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        config.checkpoint.create_seed_checkpoint = seed
        export_at_end(config)
        assert not out.exists()
    config.checkpoint.create_seed_checkpoint = False
    aside.rename(out)
    shutil.rmtree(checkpoint)
    (mistake,) = find_mistakes(config)
    assert "export.enable = true would write to" in str(mistake)


@pytest.mark.parametrize("when", ["in the last step", "once it is saved", "another rank"])
def test_a_signal_before_the_export_leaves_it_to_the_next_start(when, lab, capsys, monkeypatch):
    owner, name = (LetTrainer, "train_step") if "step" in when else (RunFolder, "end")
    before = getattr(owner, name)

    def signalled(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return before(*args)

    config, told = lab.config(None, **{**EXPORTED, "training__steps": 1}), []
    if when == "another rank":
        monkeypatch.setattr("let_titan.train.gathered", lambda mine: [mine, True])
    else:
        monkeypatch.setattr(owner, name, signalled)
    monkeypatch.setattr("let_titan.train.logger", SimpleNamespace(info=told.append))
    assert again(lab.folder, capsys)[0] == 0
    monkeypatch.undo()
    assert "after a signal its export is left out: start the same command" in told[-1]
    summary = json.loads((lab.folder / "run" / "summary.json").read_text())
    assert summary["exit_state"] == "completed" and last_checkpoint(config).is_dir()
    assert not exported_folder(config).exists()
    assert again(lab.folder, capsys)[0] == 0
    assert (exported_folder(config) / "config.json").is_file()


@pytest.mark.parametrize("folder", ["checkpoint", "./checkpoint/", "hf/../checkpoint", "link"])
def test_the_checkpoints_folder_is_no_exports_folder(folder, lab):
    (lab.folder / "run").mkdir()
    (lab.folder / "run" / "link").symlink_to("checkpoint")
    (mistake,) = find_mistakes(lab.parsed(None, **EXPORTED, export__folder=folder))
    assert f"export.folder = {folder!r} is the checkpoints' (checkpoint.folder)" in str(mistake)


def test_what_is_trained_again_is_exported_again(lab, capsys):
    every = {**EXPORTED, "checkpoint__interval": 1}
    out = exported_folder(lab.config(None, **every))
    assert again(lab.folder, capsys)[0] == 0
    first = contents(out)["model.safetensors"]
    other = out.with_name("step-9")  # which is of no checkpoint that goes
    other.mkdir()
    lab.config(None, **every, checkpoint__load_step=1, training__max_norm=0.01)
    assert again(lab.folder, capsys)[0] == 0
    assert contents(out)["model.safetensors"] != first
    aside = out.parent / "abandoned-1" / out.name
    assert contents(aside)["model.safetensors"] == first
    assert contents(out).keys() == contents(aside).keys()
    assert other.exists()


@pytest.mark.parametrize("in_hf", [False, True])
def test_a_complete_run_that_saved_the_model_alone_starts_and_ends_at_once(in_hf, lab, capsys):
    """As one does that could be extended; and what is to be exported still is."""
    alone = {"checkpoint__last_save_model_only": True, "checkpoint__last_save_in_hf": in_hf}
    config = lab.config({"s_stop": 1}, **{**SAVED, **alone, "export__enable": not in_hf})
    assert again(lab.folder, capsys)[0] == 0
    saved, summary = contents(last_checkpoint(config)), lab.folder / "run" / "summary.json"
    before = summary.read_bytes()
    shutil.rmtree(exported_folder(config), ignore_errors=True)
    assert again(lab.folder, capsys)[0] == 0
    assert contents(last_checkpoint(config)) == saved and summary.read_bytes() == before
    assert exported_folder(config).exists() == (not in_hf)


@pytest.mark.parametrize(
    "without",
    [
        {"checkpoint__enable": False},
        {"checkpoint__load_only": True},
        {"checkpoint__last_save_in_hf": True, "checkpoint__last_save_model_only": True},
    ],
)
def test_there_must_be_a_checkpoint_to_export(without, lab):
    (mistake,) = find_mistakes(lab.parsed(None, **{**EXPORTED, **without}))
    assert "export.enable = true exports the last DCP checkpoint" in str(mistake)
