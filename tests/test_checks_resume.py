"""Checks of what a run goes on from: the run's folder, its checkpoints, initial weights."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from let_titan.checks import is_over
from tests.checkpoints import make
from tests.short import S_STOP, SAVED
from tests.support import sentences


def test_more_steps_and_another_learning_rate_are_allowed(resumed):
    assert resumed(training__steps=60, optimizer__lr=1e-4) == []


def test_a_step_that_is_not_there(resumed, lab):
    (told,) = resumed(checkpoint__load_step=5)
    assert "load_step = 5 is not in" in told and "it holds the steps 1, 2" in told
    (told,) = resumed(checkpoint__load_step=5, job__dump_folder=str(lab.folder / "new"))
    assert "it holds none" in told
    assert resumed(checkpoint__load_step=5, checkpoint__enable=False) == []


def test_a_checkpoint_of_the_model_alone(resumed):
    (told,) = resumed(checkpoint__load_step=-1, training__steps=60)
    assert "without optimizer, lr_scheduler, dataloader, train_state" in told
    assert "checkpoint.last_save_model_only = false" in told


def test_a_complete_run_of_the_model_alone_is_over(resumed, lab):
    again = {"checkpoint__load_step": -1, "training__steps": 2}
    assert resumed(**again) == [] and is_over(lab.parsed({}, **SAVED, training__steps=2))
    path = lab.folder / "run" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "exit_state": "running"}))
    (told,) = resumed(**again)
    assert "holds the model alone" in told


def test_a_save_for_hugging_face_is_called_so(resumed, lab):
    folder = lab.folder / "run" / "checkpoint" / "step-2"
    shutil.rmtree(folder)
    make(folder, "model-00001-of-00001.safetensors", "model.safetensors.index.json")
    again = {"checkpoint__load_step": -1, "training__steps": 2}
    assert resumed(**again) == [] and is_over(lab.parsed({}, **SAVED, training__steps=2))
    (told,) = resumed(checkpoint__load_step=-1)
    assert "was saved for Hugging Face (checkpoint.last_save_in_hf), the model alone" in told


def test_fewer_steps_than_were_trained(resumed, lab):
    checkpoints = lab.folder / "run" / "checkpoint"
    shutil.copytree(checkpoints / "step-1", checkpoints / "step-5")
    (told,) = resumed(checkpoint__load_step=-1, training__steps=4)
    assert "goes on from step 5, which is past training.steps = 4: set 5 or more, or" in told
    assert "checkpoint.load_step = 2 to go back, or choose another job.dump_folder" in told
    assert resumed(checkpoint__load_step=-1, training__steps=5) == []


def test_without_its_train_state_nothing_goes_on(resumed):
    """It would count from 0 and save into folders that are whole."""
    (told,) = resumed(checkpoint__exclude_from_loading=["optimizer", "train_state"])
    assert "checkpoint.exclude_from_loading has 'train_state': choose from model, optimi" in told


def test_another_teacher(resumed, lab):
    another = shutil.copytree(lab.assets / "teacher", lab.folder / "another")
    (told,) = resumed(teacher__checkpoint=str(another))
    assert "its teacher was " in told and f"set teacher.checkpoint = '{lab.assets}/teacher'" in told
    moved = shutil.copytree(lab.assets / "teacher", lab.folder / "elsewhere" / "teacher")
    assert resumed(teacher__checkpoint=str(moved)) == []
    sentence = "its teacher was its revision '': set teacher.revision = '', or"
    assert [told for told in resumed(teacher__revision="v2") if sentence in told]


def test_a_run_with_a_teacher_becomes_no_baseline_before_s_stop(resumed, lab, short_run):
    told = "goes on from step 1, and it has a teacher until step 2, while this config is a baseline"
    for off in ({"let__enable": False}, {"let__lambda_0": 0.0}):
        (sentence,) = resumed(**off)
        assert told in sentence
    checkpoints = lab.folder / "run" / "checkpoint"
    shutil.copytree(checkpoints / "step-1", checkpoints / "step-3")  # past s_stop
    assert resumed(let__enable=False, checkpoint__load_step=3) == []


def test_a_baseline_becomes_no_run_with_a_teacher(resumed, lab):
    path = lab.folder / "run" / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "let_plan": None}))
    (told,) = resumed()
    assert "goes on from step 1, and it was a baseline until there" in told
    assert resumed(let__enable=False) == []


def test_another_method(resumed, lab):
    """The teacher would come back, or another one's keys be named as a cure."""
    rkd = {"let__enable": False, "distill__method": "rkd"}
    (told,) = resumed(**rkd)
    assert 'method was LET: set distill.method = "none" and let.enable = true, or' in told
    path = lab.folder / "run" / "summary.json"
    summary = json.loads(path.read_text())
    summary["config"]["distill"]["method"] = "salt"
    summary["let_plan"]["pairs"][0]["block"] = 5
    path.write_text(json.dumps(summary))
    salt = {"let__enable": False, "distill__method": "salt", "distill__n_kd": S_STOP}
    assert resumed(**salt) == []
    for another in (rkd, {}):
        (told,) = resumed(**another)
        assert 'method was SALT: set distill.method = "salt" and let.enable = false' in told
    checkpoints = lab.folder / "run" / "checkpoint"
    shutil.copytree(checkpoints / "step-1", checkpoints / "step-3")  # past n_kd
    assert resumed(let__enable=False, checkpoint__load_step=3) == []
    (told,) = resumed(**rkd, checkpoint__load_step=3)
    assert "method was SALT" in told


def test_other_pairs(resumed):
    (told,) = resumed(let__k=3)
    assert "its pairs (teacher's layer:block) were last:2: set let.k = 2 and teacher.l" in told
    (told,) = resumed(let__pairs=["last:2:0.5", "last:3:0.5"])
    assert "were last:2: set let.k = 2 and teacher.layer = last, or choose" in told
    assert resumed(let__pairs=["last:2:0.5"]) == []  # another weight


def test_another_student(resumed):
    flavor, sizes = resumed(model__flavor="demo")
    assert "its student is a 'debug': set model.flavor = 'debug'" in flavor
    assert "checkpoint of another model: tok_embeddings.weight has shape [320, 64] there" in sizes
    (unknown,) = resumed(model__flavor="9B")  # whose sizes nobody knows
    assert "model.flavor = '9B' is unknown" in unknown


def test_another_theta(resumed):
    (told,) = resumed(model__rope_theta=5e5)
    assert "its student's RoPE has theta 10000.0: set model.rope_theta = 10000.0" in told


def test_another_seed(resumed, lab):
    """let_titan.compare would take two resumes of one run for two seeds, and pair them by it."""
    (told,) = resumed(debug__seed=8)
    assert "its seed was 7: set debug.seed = 7, or choose another job.dump_folder" in told
    path = lab.folder / "run" / "summary.json"
    summary = json.loads(path.read_text())
    summary["config"]["debug"]["seed"] = None
    path.write_text(json.dumps(summary))
    (told,) = resumed()
    assert "its weights were drawn without a seed: set no debug.seed, or choose" in told


def other_tokenizer(resumed, folder):
    """Returns what is said of it alone, without a teacher, whose tokenizer would differ, too."""
    told = resumed(model__hf_assets_path=str(folder), let__lambda_0=0.0)
    return [sentence for sentence in told if "has a teacher until" not in sentence]


def test_another_tokenizer(resumed, lab):
    folder = lab.folder / "tokenizer"
    shutil.copytree(lab.assets / "tokenizer", folder)
    assert other_tokenizer(resumed, folder) == []  # only moved
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    merges = tokenizer["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    (folder / "tokenizer.json").unlink()  # another name is not in the cache of tokenizers
    folder = folder.rename(lab.folder / "other")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (told,) = other_tokenizer(resumed, folder)
    assert "its tokenizer is another one: set model.hf_assets_path" in told


def test_other_attention(resumed):
    sentence = "student attended across documents: set data.document_attention = false"
    assert [told for told in resumed(data__document_attention=True) if sentence in told]
    assert not [told for told in resumed() if sentence in told]


def test_a_run_that_goes_on_keeps_its_s_stop(resumed):
    (told,) = resumed("--let.s_stop", "5", training__steps=60)
    assert "s_stop was 2 and would become 5: pass --let.s_stop 2" in told


def test_another_batch(resumed):
    (told,) = resumed(training__local_batch_size=2)
    assert "steps have 4 sequences, and now would have 2: set training.global_batch_size" in told
    assert resumed(training__local_batch_size=2, training__global_batch_size=4) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_summary(text, resumed, lab):
    (lab.folder / "run" / "summary.json").write_text(text)
    (told,) = resumed()
    assert "summary.json' is damaged or of another program: move it away to go on from" in told
    (told, *_) = resumed(checkpoint__load_step=-1, training__steps=2)  # the model alone
    assert "another program: restore it, or move it away and go on from an older step by" in told
    (lab.folder / "run" / "summary.json").unlink()
    assert resumed(checkpoint__load_step=1, training__steps=2) == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluations.jsonl"])
@pytest.mark.parametrize(("text", "what"), [("{", "is not JSON"), ("3", "has no step")])
def test_damaged_lines(name, text, what, resumed, lab):
    path = lab.folder / "run" / name
    path.write_text('{"step": 1, "loss": 1.0}\n' + text)
    if what == "is not JSON":
        assert resumed() == []  # a kill tears the last line
    path.write_text('{"step": 1, "loss": 1.0}\n' + text + "\n")
    (told,) = resumed()
    assert told.startswith(f"{path}, line 2, {what}") and told.endswith("remove that line.")
    assert resumed(checkpoint__enable=False, checkpoint__load_step=-1) == []  # nothing reads it


@pytest.mark.parametrize("content", [b"", b"\x80", b"nonsense"])
def test_damaged_metadata(content, resumed, lab):
    (lab.folder / "run" / "checkpoint" / "step-1" / ".metadata").write_bytes(content)
    (told,) = resumed()
    assert "step-1/.metadata' is damaged: restore it, or move step-1 away" in told


def test_an_initial_checkpoint(short_run, lab):
    def started(path, **changes):
        path = {"checkpoint__initial_load_path": str(path)}
        return sentences(lab.parsed({}, **SAVED, **path, **changes))

    step = short_run / "checkpoint" / "step-2"
    assert started(step) == []
    (told,) = started(step, model__flavor="demo")
    assert "checkpoint of another model" in told
    (told,) = started(step, checkpoint__initial_load_model_only=False)
    assert "holds the model alone" in told
    for wrong in (short_run / "none", step.parent):
        (told,) = started(wrong)
        assert "is no checkpoint (it has no .metadata)" in told
    (told,) = started(short_run, checkpoint__initial_load_in_hf=True)
    assert "holds no *.safetensors" in told
    weights, hf = lab.folder / "hf", {"checkpoint__initial_load_in_hf": True}
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"torn")
    (told,) = started(weights, **hf)
    assert "holds weights that are damaged (" in told
    for name, dtype, refused in (
        ("weight", torch.float8_e4m3fn, True),
        ("qweight", torch.int32, True),
        ("weight_packed", torch.int32, True),
        ("weight", torch.float16, False),
        ("bias", torch.bool, False),  # GPT-2's mask
    ):
        tensors = {f"a.{name}": torch.zeros(1, dtype=dtype), "a.scales": torch.zeros(1)}
        save_file(tensors, weights / "model.safetensors")
        told = started(weights, **hf)
        assert any(f"a.{name} in checkpoint.initial_load" in each for each in told) == refused
        if name == "weight" and refused:
            # As scales are stored, in a dtype that safetensors has no torch dtype for
            file = weights / "model.safetensors"
            file.write_bytes(file.read_bytes().replace(b"F8_E4M3", b"F8_E8M0"))
            assert any("is quantized (" in each for each in started(weights, **hf))
    checkpoints = lab.folder / "run" / "checkpoint"
    (checkpoints / "step-5").mkdir(parents=True)  # torn: it goes at the start
    assert started(step) == []
    (checkpoints / "abandoned-1").mkdir()
    (told,) = started(step)
    assert "would not be loaded" in told and "remove that folder" in told
    for shared, key in (
        ("", "job.dump_folder"),
        ("tb", "metrics.save_tb_folder"),
        ("saved", "job.save_config_file"),
    ):
        board = {"metrics__enable_tensorboard": True, "metrics__save_tb_folder": "tb/board"}
        saved = {"job__save_config_file": "saved/config.json"}
        (told,) = started(step, checkpoint__folder=shared, **board, **saved)
        assert f"checkpoint.folder = {shared!r} holds {key}, too" in told
    assert started(step, checkpoint__folder="new") == []


def test_a_run_that_saves_nothing_does_not_go_back_in_its_folder(resumed, lab):
    """The lines after step 1 would go, and step-2 stay, whose lines they are."""
    (told,) = resumed(checkpoint__load_only=True)
    step = lab.folder / "run" / "checkpoint" / "step-1"
    assert "the checkpoints up to step 2 without their lines: choose another" in told
    assert f"checkpoint.initial_load_path = {str(step)!r} and" in told
    shutil.copytree(step, step.with_name("step-0"))
    (told,) = resumed(checkpoint__load_only=True, checkpoint__load_step=0)
    assert told.endswith("step-0'.")  # of which the weights alone are loaded
    (told,) = resumed(checkpoint__load_only=True, checkpoint__load_step=-1)
    assert "holds the model alone" in told  # as it does without load_only
    shutil.copytree(step, step.with_name("step-9"))
    (told,) = resumed(checkpoint__load_only=True, checkpoint__load_step=5)
    assert "load_step = 5 is not in" in told


def test_a_seed_checkpoint_is_never_overwritten(resumed, lab):
    folder = lab.folder / "run" / "checkpoint"
    seed = {"checkpoint__create_seed_checkpoint": True, "checkpoint__load_step": -1}
    (told,) = resumed(**seed)  # keep_latest_k would delete it first of all
    assert "has come to step 2: choose another job.dump_folder" in told
    assert resumed(**seed, job__dump_folder=str(lab.folder / "new")) == []
    shutil.copytree(folder / "step-1", folder / "step-0")
    (told,) = resumed(**seed)
    assert "would overwrite" in told and "step-0" in told
    assert resumed(checkpoint__load_step=0) == []
