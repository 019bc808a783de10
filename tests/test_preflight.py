"""Preflight as a program: every mistake is told at once, and the table says what the JSON says."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from let_titan.config import LetJobConfig
from let_titan.plan import LetPlan
from let_titan.preflight import Report, examination
from let_titan.preflight.__main__ import main
from let_titan.preflight.advice import memory_advice
from let_titan.preflight.findings import Findings
from let_titan.preflight.gpus import GPUS
from let_titan.preflight.memory import RESERVED_OVER_PREDICTED, StepMemory
from let_titan.preflight.table import sections, show
from tests.preflighted import A100, METHODS, keys_of, write
from tests.support import write_toml

pytestmark = pytest.mark.usefixtures("no_world")


def test_all_mistakes_at_once(lab, capsys):
    mistakes = ["--let.k", "9", "--validation.enable", "--validation.freq", "0"]
    mistakes += ["--model.converters", "quantize.linear.float8", "--gpu", "a100"]
    mistakes += ["--parallelism.data_parallel_shard_degree", "3", "--teacher.layer", "7"]
    code = main([*write(lab, {}), *mistakes])
    told = capsys.readouterr()
    assert code == 2
    for part in (
        "let.k = 9",
        "validation.freq = 0",
        "needs CUDA capability 8.9",
        "32 processes do not make",
        "Teacher layer 7 does not exist",
    ):
        assert told.err.count(part) == 1, part
    assert all(line.startswith("let_titan: ") for line in told.err.splitlines())
    assert not (lab.folder / "run").exists()


def test_all_wrong_names_and_types_at_once(lab, capsys):
    wrong = {"let__lamda": 1, "training__steps": "6", "nonsense__key": 1}
    path = write_toml(lab.folder / "wrong.toml", lab.sections({}, **wrong))
    assert main(["--job.config_file", str(path)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and all(line.startswith("let_titan: ") for line in told)
    for part in ("did you mean let.lambda_0?", "training.steps = '6' has the", "nonsense is unkn"):
        assert sum(part in line for line in told) == 1, part


def test_what_is_not_here_is_named_and_no_mistake(lab, capsys, monkeypatch):
    away = {
        "training__dataset_path": "none/*.zst",
        "model__hf_assets_path": "none/SmolLM-135M",
        "teacher__checkpoint": "HuggingFaceTB/SmolLM-135M",
    }
    arguments = [*write(lab, {}, **away), "--world-size", "4"]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["mistakes"] == []
    assert told["price"]["student"]["vocabulary"] == 49152
    assert told["price"]["teacher"]["parameters"] == 134515008  # tied: the LM head is no more
    for part in ("none/*.zst", "holds no tokenizer.json", "shipped facts", "were not compared"):
        assert any(part in sentence for sentence in told["unchecked"]), part
    assert main([*arguments, "--training.seq_len", "4096"]) == 2
    assert "longer than the teacher's context of 2048" in capsys.readouterr().err
    monkeypatch.setattr("let_titan.teacher.hub.answers", lambda: False)
    on_hub = ["--training.dataset", "c4", "--training.dataset_path", "allenai/c4", "--json"]
    assert main([*arguments, *on_hub]) == 0
    told = json.loads(capsys.readouterr().out)["unchecked"]
    assert any("'allenai/c4', which is no folder here and no data set of a hub" in x for x in told)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"teacher__checkpoint": "nobody/knows-this"}, "'nobody/knows-this' cannot be read"),
        ({"model__hf_assets_path": "none/unknown"}, "is not named after a model"),
        ({"teacher__checkpoint": "./none"}, "'./none' does not exist"),
        ({"let__lamda": 1}, "did you mean let.lambda_0"),
        ({"data__lanes": -1}, "data.lanes = -1"),  # which the corpus asks for, too
        ({"data__validation_fraction": 1.0}, "data.validation_fraction = 1.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_priced_is_a_mistake(changes, part, lab, capsys):
    assert main([*write(lab, {}, **changes), "--world-size", "1", "--json"]) == 2
    told = capsys.readouterr()
    assert told.err.count(part) == 1
    assert any(part in sentence for sentence in json.loads(told.out)["mistakes"])


@pytest.mark.parametrize(
    ("method", "more"),
    [*((method, []) for method in METHODS), ("let", ["--teacher.cache", "states"])],
)
def test_the_table_is_made_of_what_the_json_says(method, more, lab, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    let, keys = keys_of(method, lab)
    arguments = [*write(lab, let, checkpoint__enable=True, **keys), "--world-size", "4", *more]
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    table = capsys.readouterr().out
    run, price = told.pop("run"), told.pop("price")
    show(Report(run, Findings(**told), price))
    assert capsys.readouterr().out == table
    assert all(title in table for title in sections(price))


def test_documents_kept_apart_are_priced(lab, capsys):
    """Flex attention needs a GPU; preflight does not, and in bf16 adds nothing for it."""
    told, arguments = [], [*write(lab, {}), "--training.mixed_precision_param=bfloat16"]
    for more in ([], ["--data.document_attention"]):
        assert main([*arguments, *more, "--world-size", "1", "--json"]) == 0
        told.append({**json.loads(capsys.readouterr().out), "config": None})
    assert told[0] == told[1]


def test_warnings_are_told_and_do_not_refuse(lab, capsys):
    late = ["--checkpoint.enable", "--checkpoint.interval", "3"]
    assert main([*write(lab, {}), *late, "--world-size", "1"]) == 0
    assert "No checkpoint falls on s_stop = 4" in capsys.readouterr().out
    assert main([*write(lab, {}), "--checkpoint.enable", "--checkpoint.interval", "2"]) == 0
    assert "Warning" not in capsys.readouterr().out


def test_a_model_too_large_for_the_gpus_is_a_mistake(lab, capsys, monkeypatch):
    monkeypatch.setitem(GPUS, "a100", replace(A100, memory_bytes=2**20))
    assert main([*write(lab), "--world-size", "1"]) == 2
    assert "shard over more GPUs" in capsys.readouterr().err


def priced(capsys, *arguments):
    """Returns the report of the tiny run on two GPUs."""
    code = main([*arguments, "--world-size", "2", "--json"])
    told = json.loads(capsys.readouterr().out)
    return code, told


@pytest.mark.parametrize(("kind", "like"), [("a100-40gb", "a100"), ("h200", "h100")])
def test_a_kind_with_another_memory_is_as_fast(kind, like, lab, capsys):
    arguments = write(lab)
    (_, ours), (_, theirs) = (priced(capsys, *arguments, "--gpu", name) for name in (kind, like))
    assert ours["run"]["gpu"] != theirs["run"]["gpu"]
    rooms = [told["price"]["memory_bytes_per_gpu"]["of"] for told in (ours, theirs)]
    assert rooms == {"a100": [40e9, 80e9], "h100": [141e9, 80e9]}[like]
    sources = [told["price"]["cost"].pop("mfu_source") for told in (ours, theirs)]
    assert sources[0].endswith(sources[1]) and sources[0] != sources[1]
    assert ours["price"]["cost"] == theirs["price"]["cost"]


def test_what_is_offloaded_does_not_fill_the_gpu(lab, capsys, monkeypatch):
    arguments = write(lab)
    _, told = priced(capsys, *arguments)
    memory = told["price"]["memory_bytes_per_gpu"]
    fits = replace(A100, memory_bytes=memory["total"] - memory["weights"])
    monkeypatch.setitem(GPUS, "a100", fits)
    code, told = priced(capsys, *arguments, "--training.enable_cpu_offload")
    found = told["price"]["memory_bytes_per_gpu"]
    assert code == 0 and found["weights"] == found["gradients"] == found["adam"] == 0
    assert found["activations"] == memory["activations"]
    assert found["total"] == memory["activations"] + memory["buffers"]
    warning, tight = told["warnings"]
    assert "up to 1.24 times as much may be reserved" in tight  # it fits, though
    assert "lie in the memory of its host, which was not checked" in warning
    monkeypatch.setitem(GPUS, "a100", replace(A100, memory_bytes=1))
    code, told = priced(capsys, *arguments, "--training.enable_cpu_offload")
    assert code == 2 and "The teacher and what lasts beside it take" in told["mistakes"][0]


def test_a_checkpoint_has_the_size_of_its_dtype(lab, capsys):
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        saved = ["--checkpoint.enable", "--training.dtype", dtype]
        price = priced(capsys, *write(lab), *saved)[1]["price"]
        sizes[dtype] = price["checkpoints"]["bytes_each"] / price["student"]["parameters"]
    assert sizes == {"float32": 12, "bfloat16": 6}


def test_what_the_compiler_overlaps_takes_the_eager_runs_memory(lab, capsys):
    """Asynchronous tensor parallelism is a pass of the compiler's, and nothing is compiled here."""
    arguments = [*write(lab, {}), "--parallelism.tensor_parallel_degree", "2", "--compile.enable"]
    eager, overlapped = (
        priced(capsys, *arguments, *more)
        for more in ([], ["--parallelism.enable_async_tensor_parallel"])
    )
    assert overlapped[0] == 0 and overlapped[1]["price"] == eager[1]["price"]


def test_a_memory_budget_is_said_to_be_priced_without(lab, capsys):
    budget = ["--activation_checkpoint.mode", "memory_budget", "--compile.enable"]
    _, told = priced(capsys, *write(lab), *budget)
    assert any('"memory_budget" is priced as "none"' in each for each in told["warnings"])


def test_too_large_a_batch_is_a_warning(lab, capsys):
    huge = ["--training.local_batch_size", "500000", "--world-size", "1"]
    assert main([*write(lab), *huge]) == 0
    assert "lower training.local_batch_size = 500000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "cure"),
    [
        ({}, "lower training.local_batch_size = 8, or set activation_checkpoint.mode"),
        (
            {"training.global_batch_size": 16},
            "lower training.local_batch_size = 8 (the global batch stays), or set",
        ),
        ({"activation_checkpoint.mode": "full"}, "lower training.local_batch_size = 8."),
        ({"training.local_batch_size": 1}, 'set activation_checkpoint.mode = "full".'),
        (
            {"training.local_batch_size": 1, "activation_checkpoint.mode": "full"},
            "shard over more GPUs.",
        ),
        (
            {"parallelism.pipeline_parallel_microbatch_size": 2},
            "lower parallelism.pipeline_parallel_microbatch_size = 2 (the global batch stays), or",
        ),
    ],
)
def test_only_what_helps_is_advised(changes, cure):
    config = LetJobConfig()
    for key, value in changes.items():
        section, _, name = key.partition(".")
        setattr(getattr(config, section), name, value)
    if "parallelism" in str(changes):
        config.parallelism.pipeline_parallel_degree = 2
    memory = StepMemory(2**30, 2**30, 2**30, 0, A100.memory_bytes)
    (told,) = memory_advice(config, A100, memory)
    assert f"activations: {cure}" in told


def test_a_sum_that_may_not_fit_once_it_is_reserved(lab):
    """As much more as torchtitan's published runs took than is predicted for them."""
    config = lab.parsed(None)
    most = RESERVED_OVER_PREDICTED[1]
    fits = int(A100.memory_bytes / most) - 2**20
    assert list(memory_advice(config, A100, StepMemory(0, 0, 0, 0, fits))) == []
    (told,) = memory_advice(config, A100, StepMemory(0, 0, 0, 0, fits + 2**21))
    assert "activations, and up to 1.24 times as much may be reserved: lower training.loc" in told
    (told,) = memory_advice(config, A100, StepMemory(0, 0, 0, 0, A100.memory_bytes + 2**20))
    assert "activations: lower training.local_batch_size" in told


def test_each_rank_of_a_pipeline_must_hold_what_lasts(lab, capsys, monkeypatch):
    """In 1F1B the first has most activations, the last one the LM head."""
    n_bytes = A100.memory_bytes
    first = StepMemory(n_bytes // 2, 0, 0, 0, n_bytes)
    last = StepMemory(n_bytes + 1, 0, 0, 0, 0)
    student = examination.measure(lab.parsed(None), 1, LetPlan(), 1)[0]
    monkeypatch.setattr(examination, "measure", lambda *_: (student, None, [first, last]))
    assert main([*write(lab), "--world-size", "1"]) == 2
    assert "take 74.51 GiB on each GPU" in capsys.readouterr().err


@pytest.mark.parametrize(("per_node", "code"), [(7, 2), (12, 2), (8, 0), (64, 0)])
def test_nodes_of_unequal_size_are_refused_as_the_run_would(per_node, code, lab, capsys):
    within = ["--teacher.placement", "node", "--training.local_batch_size", "1"]
    options = ["--world-size", "16", "--gpus-per-node", str(per_node)]
    assert main([*write(lab, {}), *within, *options]) == code
    told = f"--gpus-per-node {per_node} does not divide --world-size 16"
    assert (told in capsys.readouterr().err) == (code == 2)


def as_a_module(lab, *args):
    command = [sys.executable, "-m", "let_titan.preflight", *write(lab, {}), *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_as_a_module_without_traceback(lab):
    process = as_a_module(lab, "--let.k", "9")
    assert process.returncode == 2
    assert "let.k = 9" in process.stderr
    assert "Traceback" not in process.stderr + process.stdout


def test_no_library_speaks_beside_the_report(lab):
    """Not of the enums and extensions of torchao, nor of a CPU's autocast."""
    process = as_a_module(lab, "--world-size", "1")
    (told,) = process.stderr.splitlines()  # our own word on the teacher
    assert told.endswith("brings no tokenizer to compare the student's with.")
    assert "debug on 1 x A100" in process.stdout and process.returncode == 0
