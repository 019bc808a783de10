"""The shipped configs: each preflights on its GPUs, and its header says what comes out."""

import json
import re
from pathlib import Path

import pytest
from preflight_all import main as preflight_all
from preflight_all import worlds_of

import let_titan.preflight.examination as examination
from let_titan.config import LetConfigManager
from let_titan.preflight.memory import StepMemory

SHIPPED = Path(__file__).parent.parent / "train_configs"
PAPER = sorted(SHIPPED.glob("let_*.toml"))
ROOM = 0.65
"""What preflight may tell of a GPU's memory, since no GPU has confirmed its activations."""
PRICED = SHIPPED.parent / "recipes" / "results" / "preflight"


@pytest.fixture(autouse=True)
def at_the_top(no_world, monkeypatch):
    monkeypatch.chdir(SHIPPED.parent)


def parse(path: Path):
    return LetConfigManager().parse_args(["--job.config_file", str(path)])


def examine(path: Path, world_size: int):
    config = parse(path)
    return examination.examine(config, world_size, examination.choose_gpu(config, None))


def header(path: Path) -> str:
    lines = path.read_text().partition("\n\n[")[0].splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_preflights_on_its_gpus(path, monkeypatch):
    """All but the activations, which take seconds a config; the next test is about them."""
    memory = StepMemory(1, 1, 1, 1, 1)
    monkeypatch.setattr(examination, "measure_step", lambda *_: memory)
    monkeypatch.setattr(examination, "measure_pipeline", lambda *_: [memory, memory])
    reports = {n: examine(path, n) for n in worlds_of(path)}
    assert all(report.findings.mistakes == [] for report in reports.values())
    batches = {n: report.price["batch"] for n, report in reports.items()}
    for batch in batches.values():
        ranks = batch["data_parallel_replicate"] * batch["data_parallel_shard"]
        rows = ranks * batch["local_batch_size"] * batch["accumulation"]
        assert batch["tokens_per_step"] == rows * batch["seq_len"]
    if path not in PAPER:
        return
    for batch in batches.values():
        assert batch["tokens_per_step"] == 1024 * 2048
        assert batch["tokens"] == pytest.approx(20e9, rel=1e-3)
    hours = re.search(r"not measured: ([\d,]+) GPU-hours", header(path))
    assert hours is not None
    for report in reports.values():
        assert hours[1] == f"{report.price['cost']['gpu_hours']:,.0f}"
    let = next(iter(reports.values())).price["let"]
    assert (let is None) == path.stem.endswith("_baseline")
    config = parse(path)
    assert let is None or let["s_stop"] % config.checkpoint.interval == 0
    assert not config.checkpoint.last_save_model_only


def told_memory(path: Path) -> int | None:
    """Returns the GiB that the header tells of the fullest GPU."""
    told = re.search(r"(?:on 8 GPUs (\d+) GiB on each|(\d+) GiB on the fullest)", header(path))
    return None if told is None else int(told[1] or told[2])


@pytest.mark.parametrize("name", ["let_1_4b", "let_7b", "let_70b"])
def test_fits_as_its_header_says(name):
    path = SHIPPED / f"{name}.toml"
    report = examine(path, worlds_of(path)[0])
    memory = report.price["memory_bytes_per_gpu"]
    assert told_memory(path) == round(memory["total"] / 2**30)
    assert memory["total"] < ROOM * memory["of"]


REASONS = ("batch", "local batch", "lr", "init_scheme", "AC", "compile", "checkpoint", "validation")


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_header_gives_its_reasons(path):
    """Hardware, tokens, steps; what is the paper's and what ours; why each setting is as it is."""
    config, told = parse(path), header(path)
    assert re.search(
        r"Hardware: 32 x [AH]100 80 GB .* or 8 of them|Hardware: 256 x A100 80 GB", told
    )
    assert f"{config.training.steps:,} steps of 2,097,152 tokens are 20.01B tokens" in told
    assert "From the paper:" in told and "those are ours, none of them tuned" in told
    reasons = told.partition("those are ours")[2]
    for word in REASONS:
        assert re.search(rf"- {re.escape(word)}\b[^-]*:|- {re.escape(word)} \S+", reasons), word
    assert float(re.search(r"- lr ([\d.e-]+)", reasons)[1]) == config.optimizer.lr
    assert f"Warm-up {config.lr_scheduler.warmup_steps} steps" in reasons
    assert f"every {config.checkpoint.interval} steps" in reasons
    assert f"every {config.validation.freq} steps" in reasons
    lines = config.training.steps // config.metrics.log_freq
    assert f"the log every {config.metrics.log_freq}: {lines} lines a run" in reasons
    if config.let.enable:
        assert f"- k = {config.let.k} of " in reasons
        assert f"s_stop = {config.let.s_stop:,} (15 %)" in reasons


def test_a_config_that_is_not_there_is_priced_as_a_mistake(tmp_path, capsys):
    with pytest.raises(SystemExit):
        preflight_all(["--only", "let_7b", "let_7bb", "--out", str(tmp_path)])
    assert "--only let_7bb: train_configs/ has no such file" in capsys.readouterr().err


def test_every_shipped_config_was_priced_and_fits():
    """recipes/preflight_all.py ran preflight whole, activations and all."""
    runs = json.loads((PRICED / "results.json").read_text())["runs"]
    wanted = {(path.stem, n) for path in SHIPPED.glob("*.toml") for n in worlds_of(path)}
    assert {(run["config"], run["world_size"]) for run in runs} == wanted
    for run in runs:
        memory = run["memory_bytes_per_gpu"]
        assert run["mistakes"] == [] and memory["total"] < ROOM * memory["of"]
        told = told_memory(SHIPPED / f"{run['config']}.toml")
        if told is not None and run["world_size"] != 32:
            assert told == round(memory["total"] / 2**30), run["config"]


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_header_names_this_file_and_its_twin(path):
    twin = f"{path.stem}_baseline".removesuffix("_baseline_baseline")
    assert (SHIPPED / f"{twin}.toml").exists()
    commands = re.findall(r"--job\.config_file (\S+)", header(path))
    assert commands == [f"train_configs/{path.name}"] * 2
    assert f"{twin}.toml" in header(path)
