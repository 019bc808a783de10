"""The lab on one GPU, as far as a CPU shows it: preflight, and its arms in a tiny form."""

import json
from pathlib import Path

import pytest
from lab import runs
from lab.gpu_arms import LARGER, methods
from lab.launch import flags

import let_titan.preflight.examination as examination
from let_titan.config import LetConfigManager
from let_titan.preflight.__main__ import main
from let_titan.preflight.memory import StepMemory
from let_titan.train import LetTrainer

ROOT = Path(__file__).parents[1]
PUBLISHED = {
    "model.hf_assets_path": "none/SmolLM-135M",  # the same shape and vocabulary, whose facts ship
    "training.dataset_path": "none/*.zst",
    "validation.dataset_path": "none/*.zst",
}
STUDENTS = {
    "124M": (methods({}, k=2), 123_879_040),
    "350M": (methods(LARGER, k=3), 408_994_816),
}


def arguments(keys):
    return ["--job.config_file", str(ROOT / runs.GPU.config), *flags(keys)]


def priced(keys, capsys):
    """What preflight says of a run on one H100, in which it finds no mistake."""
    keys = {**keys, **PUBLISHED, "teacher.checkpoint": "HuggingFaceTB/SmolLM-135M"}
    assert main([*arguments(keys), "--world-size", "1", "--gpu", "h100", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["price"]


@pytest.mark.usefixtures("no_world")
def test_the_smaller_student_fits_a_gpu_of_80_gb(capsys):
    memory = priced(STUDENTS["124M"][0]["LET"], capsys)["memory_bytes_per_gpu"]
    assert memory["total"] < 0.8 * memory["of"]  # as no GPU has confirmed the activations


@pytest.mark.usefixtures("no_world")
@pytest.mark.parametrize("student", STUDENTS)
def test_preflight_finds_no_mistake_in_any_arm(student, capsys, monkeypatch):
    """All but the activations, which take most of a minute at 350M."""
    monkeypatch.setattr(examination, "measure_step", lambda *_: StepMemory(1, 1, 1, 1, 1))
    arms, parameters = STUDENTS[student]
    for keys in arms.values():
        price = priced(keys, capsys)
        assert price["student"]["parameters"] == parameters
        assert price["batch"]["tokens"] == 52_428_800


def test_all_arms_leave_their_teacher_at_a_checkpoint():
    for arms, _ in STUDENTS.values():
        for name, keys in arms.items():
            config = LetConfigManager().parse_args(arguments(keys))
            share = config.let.s_stop_fraction if name == "LET" else 0.15
            s_stop = round(share * config.training.steps)
            assert s_stop % config.checkpoint.interval == 0
            assert name != "SALT" or config.distill.n_kd == s_stop


@pytest.mark.parametrize("arm", ["LET", "RKD"])
def test_an_arm_trains_in_a_tiny_form(arm, lab):
    """In bf16 under autocast, its documents tokenised by workers; eager, in seconds."""
    tiny = {
        "model.flavor": "debug",
        "model.hf_assets_path": str(lab.assets / "tokenizer"),
        "teacher.checkpoint": str(lab.assets / "teacher"),
        "training.dataset_path": str(lab.assets / "[t]rain.jsonl"),
        "validation.dataset_path": str(lab.assets / "validation.jsonl"),
        "validation.local_batch_size": "4",
        "validation.steps": "1",
        "job.dump_folder": str(lab.folder / "run"),
        "compile.enable": "false",
        "checkpoint.enable": "false",
        "metrics.log_freq": "1",
    }
    sizes = {f"{part}.seq_len": "64" for part in ("training", "validation")}
    sizes |= {"training.local_batch_size": "8", "training.steps": "20", "data.lanes": "4"}
    sizes |= {"training.dataloader.num_workers": "2"}
    keys = {**STUDENTS["124M"][0][arm], **tiny, **sizes}
    trainer = LetTrainer(LetConfigManager().parse_args(arguments(keys)))
    try:
        trainer.train()
    finally:
        trainer.close()
    lines = (lab.folder / "run" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    train = [line for line in found if "loss" in line]
    ends = [line["val_loss"] for line in found if "val_loss" in line]
    active = [line["step"] for line in train if line["teacher_active"]]
    assert active == list(range(1, (3 if arm == "LET" else 20) + 1))  # 15 % of the steps
    assert ends[-1] < ends[0] and train[-1]["teacher_flops"] > 0
