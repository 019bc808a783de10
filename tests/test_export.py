"""Export: what Hugging Face loads computes what the trainer's student computes."""

import json
import shutil
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torchtitan.models.llama3.model.args import RoPEScalingArgs
from transformers import AutoConfig, AutoModelForCausalLM

from let_titan.checkpoint.folders import set_aside
from let_titan.errors import ConfigError
from let_titan.export.__main__ import main
from let_titan.export.card import model_card
from let_titan.export.folder import export
from let_titan.export.source import find_source
from let_titan.export.weights import WeightStream
from let_titan.student import FLAVORS, LetTransformer
from tests.checkpoints import DAMAGE
from tests.exported import same_logits, student, with_weights, write_run
from tests.resumed import STEPS

LAST = f"step-{STEPS}"
HEAD = 16


def shrunk(flavor):
    """A flavor with its own ratios: heads to kv heads, FFN to width; two blocks of narrow heads."""
    args = FLAVORS[flavor]
    heads_per_kv = args.n_heads // (args.n_kv_heads or args.n_heads)
    heads = max(2, 2 * heads_per_kv)
    return replace(
        args,
        n_layers=2,
        n_heads=heads,
        n_kv_heads=args.n_kv_heads and heads // heads_per_kv,
        dim=HEAD * heads,
        multiple_of=min(args.multiple_of, 32),
    )


@pytest.mark.parametrize("flavor", FLAVORS)
def test_logits_are_the_students_for_every_flavors_shape(flavor, assets, tmp_path, monkeypatch):
    monkeypatch.setitem(FLAVORS.data, flavor, shrunk(flavor))
    model = student(flavor)
    write_run(tmp_path / "run", model, flavor, assets / "tokenizer")
    assert main([str(tmp_path / "run"), str(tmp_path / "hf")]) == 0
    assert same_logits(model, tmp_path / "hf")
    config = AutoConfig.from_pretrained(tmp_path / "hf")
    assert config.num_key_value_heads == (FLAVORS[flavor].n_kv_heads or FLAVORS[flavor].n_heads)
    assert config.max_position_embeddings == 64 and not config.tie_word_embeddings
    plain = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert plain["rope_theta"] == 10_000 and plain["rope_scaling"] is None


def test_the_runs_theta_is_trained_and_written(lab, assets, tmp_path):
    config = lab.config(None, model__rope_theta=5e5)
    args = FLAVORS["debug"]
    args.update_from_config(config)
    model = LetTransformer(args)
    with torch.no_grad():
        model.init_weights()
    write_run(tmp_path / "run", model, "debug", assets / "tokenizer")
    path = tmp_path / "run" / "summary.json"
    summary = json.loads(path.read_text())
    summary["config"]["model"] = config.to_dict()["model"]
    path.write_text(json.dumps(summary))
    export(find_source(tmp_path / "run"), tmp_path / "hf")
    assert same_logits(model, tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    settings = json.loads(path.read_text())
    assert settings["rope_theta"] == settings["rope_parameters"]["rope_theta"] == 5e5
    settings["rope_theta"] = settings["rope_parameters"]["rope_theta"] = 1e4
    path.write_text(json.dumps(settings))
    assert not same_logits(model, tmp_path / "hf")  # theta matters at these lengths


def test_scaled_rope_is_written_as_it_was_trained(assets, tmp_path, monkeypatch):
    scaling = RoPEScalingArgs(scaling_factor=4.0, original_max_position_embeddings=16)
    scaled = replace(shrunk("debug"), rope_scaling_args=scaling, rope_theta=500)
    monkeypatch.setitem(FLAVORS.data, "debug", scaled)
    model = student("debug")
    write_run(tmp_path / "run", model, "debug", assets / "tokenizer")
    export(find_source(tmp_path / "run"), tmp_path / "hf")
    assert same_logits(model, tmp_path / "hf")
    path = tmp_path / "hf" / "config.json"
    settings = json.loads(path.read_text())
    settings["rope_parameters"]["factor"] = settings["rope_scaling"]["factor"] = 8.0
    path.write_text(json.dumps(settings))
    assert not same_logits(model, tmp_path / "hf")  # the factor matters at these lengths


def names_in(folder):
    names = []
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names += tensors.keys()
    return names


def test_a_let_runs_full_checkpoint(finished, tmp_path):
    run, weights = finished[0], finished[1]["weights"]
    assert main([str(run), str(tmp_path / "hf")]) == 0
    assert same_logits(with_weights(weights), tmp_path / "hf")
    names = names_in(tmp_path / "hf")
    assert len(names) == len(weights)  # neither moments nor anything of the teacher's
    assert all(name.startswith(("model.", "lm_head.")) for name in names)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "last -> 2 (1.0)" in card and str(run.parent) not in card.split("teacher")[0]
    losses = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    loss = next(x["val_loss"] for x in losses if x["step"] == STEPS and "val_loss" in x)
    assert f"| validation loss (nats per token) | {loss:.4f} |" in card
    assert json.loads((tmp_path / "hf" / "let_titan.json").read_text())["step"] == STEPS


def test_a_card_has_the_figures_of_its_step_and_what_stood_around_documents(finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    lines = [{"step": STEPS - 1, "val_loss": 1.25}, {"step": STEPS, "val_loss": 1.5}]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    change(run, "special_tokens", {"add_bos": True, "bos_id": 5, "add_eos": False, "eos_id": 6})
    card = model_card(find_source(run / "checkpoint" / f"step-{STEPS - 1}"), "float32")
    assert "| validation loss (nats per token) | 1.2500 |" in card
    assert "In training there was BOS (id 5) before each document" in card
    change(run, "special_tokens", "add_bos", False)
    assert "there was neither BOS nor EOS around each document" in model_card(find_source(run), "")


def test_a_checkpoint_that_was_set_aside_has_no_figures_of_what_took_its_place(finished, tmp_path):
    run = shutil.copytree(finished[0], tmp_path / "run")
    aside = set_aside(run / "checkpoint", STEPS - 1)
    aside = aside.rename(aside.with_name("abandoned-too_fast"))  # a user's name for it
    shutil.copytree(aside / LAST, run / "checkpoint" / LAST)
    assert main([str(run / "checkpoint" / LAST), str(tmp_path / "of_the_run")]) == 0
    assert main([str(aside / LAST), str(tmp_path / "aside")]) == 0
    cards = [(tmp_path / name / "README.md").read_text() for name in ("of_the_run", "aside")]
    for row in ("validation loss", "learning rate"):
        assert [row in card for card in cards] == [True, False]
    assert ["This checkpoint was set aside" in card for card in cards] == [False, True]


def test_shards_hold_the_same_tensors_as_one_file(finished, tmp_path):
    source = find_source(finished[0])
    export(source, tmp_path / "one")
    export(source, tmp_path / "many", shard_gb=1e-4)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    assert sorted(names_in(tmp_path / "many")) == sorted(names_in(tmp_path / "one"))
    assert all(file.stat().st_size < 1.3e5 for file in (tmp_path / "many").glob("*.safetensors"))
    assert same_logits(with_weights(finished[1]["weights"]), tmp_path / "many")


@pytest.mark.parametrize("size", ["-1", "0", "nan", "inf"])
def test_a_files_size_is_above_0(size, finished, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(finished[0]), str(tmp_path / "hf"), "--shard-gb", size])
    told = capsys.readouterr().err
    assert f"--shard-gb: {float(size)} must be a finite number above 0" in told


def test_one_file_is_in_memory_at_a_time(finished, tmp_path, monkeypatch):
    whole, read, given, held = with_weights(finished[1]["weights"]), WeightStream.read, [], []

    def counted(stream, name):
        tensor = read(stream, name)
        given.append(weakref.ref(tensor))
        held.append(sum(x.nbytes for each in given if (x := each()) is not None))
        return tensor

    monkeypatch.setattr(WeightStream, "read", counted)
    export(find_source(finished[0]), tmp_path / "out", shard_gb=1e-4)
    files = [file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors")]
    assert max(held) <= max(files) < sum(x.nbytes for x in whole.parameters()) / 3


def test_bfloat16_is_the_rounded_model(finished, tmp_path):
    export(find_source(finished[0]), tmp_path / "hf", dtype=torch.bfloat16)
    rounded = {name: value.bfloat16().float() for name, value in finished[1]["weights"].items()}
    assert same_logits(with_weights(rounded), tmp_path / "hf")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "hf").dtype == torch.bfloat16


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_ends_in_a_sentence(damage, finished, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "run")
    DAMAGE[damage](tmp_path / "run" / "checkpoint" / LAST / "__0_0.distcp")
    assert main([str(tmp_path / "run"), str(tmp_path / "hf")]) == 2
    assert "is damaged: __0_0.distcp" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]  # nothing half done is left


def tear(run):
    (run / "checkpoint" / LAST / ".metadata").unlink()


FLAVOR = ("config", "model", "flavor")
MISTAKES = {
    "torn": (tear, "was cut short"),
    "another student": (
        lambda run: change(run, "architecture", "dim", 256),
        "must be [320, 256]",
    ),
    "unknown flavor of an earlier version's run": (
        lambda run: (change(run, "architecture", None), change(run, *FLAVOR, "9B")),
        "no student of this let_titan",
    ),
    "tokenizer gone": (
        lambda run: change(run, "tokenizer", "path", "/nowhere"),
        "--tokenizer",
    ),
    "another tokenizer": (
        lambda run: change(run, "tokenizer", "sha256", "0"),
        "is not the one of the run",
    ),
    "no summary": (lambda run: (run / "summary.json").unlink(), "--run"),
}


def change(run, *path):
    *keys, last, value = path
    summary = json.loads((run / "summary.json").read_text())
    section = summary
    for key in keys:
        section = section[key]
    section[last] = value
    (run / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(mistake, finished, tmp_path, capsys):
    shutil.copytree(finished[0], tmp_path / "run")
    make, sentence = MISTAKES[mistake]
    make(tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint" / LAST
    assert main([str(checkpoint), str(tmp_path / "hf")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "hf").exists()


def test_a_torn_checkpoint_is_passed_over_for_the_last_whole_one(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    tear(tmp_path / "run")
    assert find_source(tmp_path / "run").step == STEPS - 1
    assert find_source(tmp_path / "run" / "checkpoint").step == STEPS - 1


def test_a_run_that_saved_for_hugging_face_alone_is_not_called_cut_short(tmp_path):
    step = tmp_path / "checkpoint" / LAST
    step.mkdir(parents=True)
    (step / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"{LAST}' holds safetensors already"):
        find_source(tmp_path)


def test_nothing_is_overwritten(finished, tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ConfigError, match="exists"):
        export(find_source(finished[0]), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_the_folder_that_one_is_in_is_not_replaced(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(finished[0]), "."]) == 2
    assert "is the folder that you are in" in capsys.readouterr().err
    assert tmp_path.is_dir()


def test_a_checkpoint_may_have_any_name(finished, tmp_path):
    shutil.copytree(finished[0] / "checkpoint" / LAST, tmp_path / "step-final")
    call = [str(tmp_path / "step-final"), str(tmp_path / "hf"), "--run", str(finished[0])]
    assert main(call) == 0
    assert json.loads((tmp_path / "hf" / "let_titan.json").read_text())["step"] is None
