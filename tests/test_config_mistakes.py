"""A sentence for each mistake in a config."""

import json
import shutil
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
import torchtitan.protocols.model_converter as model_converter
from torchtitan.hf_datasets.text_datasets import DATASETS

from let_titan.checks import check_config, data_parallel_degrees, find_mistakes, machine
from let_titan.checks.ranges import RANGES
from let_titan.config import LetConfigManager
from let_titan.errors import ConfigError
from tests.test_fuzz import KEYS


@pytest.mark.parametrize(
    ("let", "args", "sentence"),
    [
        (None, ["--let.lambda_0", "0.2"], "not enable"),
        (None, ["--nonsense.key", "1"], None),
        ({"recipe": "secret"}, [], "let.recipe = 'secret' is unknown"),
        ({"k": 0}, [], "let.k = 0 must lie between 1 and the 4 blocks"),
        ({"k": 5}, [], "let.k = 5"),
        ({"k": "3"}, [], "let.k = '3' has the wrong type: it must be int"),
        ({"k": True}, [], "let.k = True has the wrong type"),
        ({"k": 2.5}, [], "let.k = 2.5 has the wrong type"),
        ({"pairs": "last:2"}, [], "let.pairs = 'last:2' has the wrong type"),
        ({"pairs": ["last"]}, [], "let.pairs has 'last'"),
        ({"pairs": ["last:9:1"]}, [], "let.pairs' student block = 9"),
        ({"pairs": ["last:2:-1"]}, [], "weight of -1"),
        ({"lambda_0": -0.1}, [], "let.lambda_0 = -0.1 is out of range: it must be at least 0"),
        ({"lambda_0": float("inf")}, [], "let.lambda_0 = inf is out of range"),
        ({"s_stop": 7}, [], "let.s_stop = 7 must lie between 1 and training.steps = 6"),
        ({"s_stop": -1}, [], "let.s_stop = -1"),
        ({"schedule": "wavy"}, [], "let.schedule = 'wavy'"),
        ({"lamda": 0.1}, [], "lamda"),
        ({}, ["--teacher.checkpoint", ""], "needs teacher.checkpoint"),
        ({}, ["--teacher.checkpoint", "./nowhere"], "'./nowhere' does not exist"),
        ({}, ["--model.flavor", "8B"], "model.flavor = '8B' is unknown"),
        ({}, ["--model.name", "llama3"], "model.name = 'llama3'"),
        ({}, ["--model.converters", "float8"], "model.converters has 'float8'"),
        ({}, ["--model.hf_assets_path", "nowhere"], "holds no tokenizer.json"),
        ({}, ["--training.dataset_path", "nowhere/*.jsonl"], "matches no file"),
        ({}, ["--training.dataset", "piles"], "training.dataset = 'piles' is unknown"),
        ({}, ["--validation.enable", "--validation.dataset", "pile"], "matches no file"),
        ({}, ["--training.global_batch_size", "6"], "no multiple of"),
        ({}, ["--optimizer.early_step_in_backward"], "early_step_in_backward = true is not supp"),
        (
            {},
            ["--let.s_stop_fraction", "0.01"],
            "let.s_stop_fraction = 0.01 is step 0, which must lie between 1 and",
        ),
        ({}, ["--parallelism.pipeline_parallel_degree", "2"], "pipeline_parallel_degree = 2"),
        ({}, ["--parallelism.context_parallel_degree", "2"], "context_parallel_degree = 2"),
        ({}, ["--parallelism.tensor_parallel_degree", "2"], "tensor_parallel_degree = 2"),
        ({}, ["--parallelism.data_parallel_shard_degree", "3"], "1 processes do not make"),
        ({}, ["--checkpoint.create_seed_checkpoint"], "needs checkpoint.enable"),
        ({}, ["--checkpoint.keep_latest_k", "1"], "keep_latest_k = 1"),
        ({}, ["--validation.steps", "0"], "not valid"),
        (
            {},
            ["--training.steps", "0"],
            "training.steps = 0 is out of range: it must be at least 1",
        ),
        ({}, ["--training.global_batch_size", "0"], "it must be -1, or at least 1"),
        ({}, ["--training.max_norm", "0"], "max_norm = 0.0 is out of range: it must be above 0"),
        ({}, ["--optimizer.lr", "nan"], "optimizer.lr = nan is out of range"),
        ({}, ["--optimizer.beta2", "1"], "it must be at least 0 and below 1."),
        ({}, ["--metrics.log_freq", "0"], "metrics.log_freq = 0 is out of range"),
        ({}, ["--optimizer.name", "SGD"], "optimizer.name = 'SGD': choose from AdamW, Adam."),
        ({}, ["--compile.components", "model,lost"], "compile.components has 'lost'"),
        ({}, ["--activation_checkpoint.selective_ac_option", "-1"], "every how many blocks"),
        ({}, ["--activation_checkpoint.mode", "memory_budget"], "is the compiler's"),
        (
            {},
            [
                "--activation_checkpoint.mode=selective",
                "--activation_checkpoint.selective_ac_option=op",
                "--activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns",
                "feed_forward.w1,layers.3.attention",
            ],
            "'layers.3.attention', which is a part of 'layers.3.attention', no linear layer but At",
        ),
        ({}, ["--parallelism.expert_parallel_degree", "2"], "the student has no experts"),
        ({}, ["--comm.mode", "fake_backend"], "nothing is trained in torchtitan's dry runs"),
        ({}, ["--lr_scheduler.total_steps", "5"], "less than training.steps = 6"),
        ({}, ["--job.custom_config_module", "json"], "has no attribute 'JobConfig'"),
        ({}, ["--experimental.custom_import", "none.such"], "'none.such' cannot be imported"),
        ({}, ["--experimental.custom_args_module", "x"], "job.custom_config_module adds keys"),
        ({}, ["--checkpoint.initial_load_in_hf_quantized"], "as they are stored, without scales"),
        (
            {},
            ["--parallelism.context_parallel_rotate_method", "alltoall"],
            "trains with allgather; leave the key out",
        ),
        ({}, ["--checkpoint.last_save_in_hf"], "would fail at its last step"),
        ({}, ["--model.converters", "quantize.grouped_mm.float8"], "which is for experts"),
    ],
)
def test_a_mistake_gets_a_sentence(let, args, sentence, lab, capsys):
    if sentence is None:  # the command line's own mistakes are tyro's: a box, and exit code 2
        with pytest.raises(SystemExit, match="2"):
            lab.config(let, *args)
        assert "nonsense" in capsys.readouterr().err
        return
    with pytest.raises(ConfigError) as error:
        lab.config(let, *args)
    assert sentence in str(error.value)


@pytest.mark.filterwarnings("error")  # tyro would warn of these, with a frame of its own
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("checkpoint__folder", "a\0b", r"checkpoint.folder = 'a\x00b' has a NUL"),
        ("let__enable", "yes", "let.enable = 'yes' has the wrong type: it must be bool"),
        ("let__recipe", ["paper"], "let.recipe = ['paper'] has the wrong type: it must be str"),
        ("let__loss", ["cosine"], "let.loss = ['cosine'] has the wrong type"),
        ("let__pairs", ["last:2", 2], "let.pairs = ['last:2', 2] has the wrong type"),
        ("let__lamda_0", 0.1, "let.lamda_0 is unknown: did you mean let.lambda_0?"),
        ("teacher__layer", True, "teacher.layer = True has the wrong type"),
        ("teacher__layer", "3", "teacher.layer = '3' has the wrong type"),
        ("teacher__trust_remote_code", 1, "trust_remote_code = 1 has the wrong type"),
        ("training__steps", 6.0, "training.steps = 6.0 has the wrong type: it must be int"),
        ("training__max_norm", True, "training.max_norm = True has the wrong type"),
        ("model__converters", "float8", "model.converters = 'float8' has the wrong type"),
        ("trainin__steps", 6, "trainin is unknown: did you mean training?"),
        ("job__custom_config_module", "nowhere", "No module named 'nowhere'"),
    ],
)
def test_a_wrong_name_or_type_in_the_file_is_told(name, value, sentence, lab):
    with pytest.raises(ConfigError) as error:
        lab.config({}, **{name: value})
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["optimizer = 3", "[[optimizer]]\nlr = 1.0"])
def test_a_section_that_is_none_is_told(text, tmp_path):
    path = tmp_path / "flat.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"must be a section: write \[optimizer\]"):
        LetConfigManager().parse_args(["--job.config_file", str(path)])


ADDS_KEYS = """
from dataclasses import dataclass, field

@dataclass
class Mine:
    word: str = ""

@dataclass
class Training:
    my_key: int = 3

@dataclass
class JobConfig:
    mine: Mine = field(default_factory=Mine)
    training: Training = field(default_factory=Training)
"""


def test_a_module_of_the_users_adds_keys_to_the_file(lab, monkeypatch):
    (lab.folder / "adds_keys.py").write_text(ADDS_KEYS)
    monkeypatch.syspath_prepend(lab.folder)
    module = {"job__custom_config_module": "adds_keys"}
    config = lab.config({}, **module, mine__word="y", training__my_key=4)
    assert (config.mine.word, config.training.my_key, config.let.k) == ("y", 4, 2)
    with pytest.raises(ConfigError, match=r"mine\.wrod is unknown: did you mean mine\.word\?"):
        lab.config({}, **module, mine__wrod="y")
    with pytest.raises(ConfigError, match=r"custom_config_module = 3 has the wrong type"):
        lab.config({}, job__custom_config_module=3)


def test_an_old_tokenizer_file_is_told(lab):
    old = lab.folder / "tokenizer.model"
    old.write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")  # as SentencePiece's begin
    with pytest.raises(ConfigError, match=r"SentencePiece tokenizer\.model needs its Hugging"):
        lab.config(None, model__hf_assets_path=str(old))


ADDS_PARTS = """
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import DATASETS
from torchtitan.protocols.model_converter import register_model_converter

DATASETS["my_set"] = DatasetConfig(path=__file__, loader=None, sample_processor=None)
register_model_converter(object, "my_converter")
"""


def test_what_a_module_of_the_users_registers_can_be_named(lab, monkeypatch):
    (lab.folder / "adds_parts.py").write_text(ADDS_PARTS)
    (lab.folder / "broken.py").write_text("raise ValueError('a\\nb')")
    monkeypatch.syspath_prepend(lab.folder)
    monkeypatch.setattr(model_converter, "_registry_model_converter_cls", {})
    monkeypatch.setitem(DATASETS, "my_set", None)  # which is taken out after the test
    keys = {"training__dataset": "my_set", "model__converters": ["my_converter"]}
    lab.config(None, experimental__custom_import="adds_parts", **keys)
    with pytest.raises(ConfigError, match=r"'broken' cannot be imported \(a b\): put it on"):
        lab.config(None, experimental__custom_import="broken")


def test_ddp_stands_alone(lab, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    two = ["--parallelism.data_parallel_replicate_degree", "2"]
    lab.config({}, *two)  # HSDP
    lab.config({}, "--parallelism.data_parallel_replicate_degree", "4")
    with pytest.raises(ConfigError, match="is DDP, which goes with no other"):
        lab.config(None, *two, "--parallelism.tensor_parallel_degree", "2")


def test_validation_needs_a_number_of_steps(lab):
    changes = {
        "validation__enable": True,
        "validation__dataset": "pile",
        "validation__dataset_path": str(lab.assets / "validation.jsonl"),
        "validation__seq_len": 64,
    }
    with pytest.raises(ConfigError, match=r"validation.steps = -1 must be at least 1"):
        lab.config(None, **changes)


@pytest.mark.parametrize("text", ["[let\n", "let = 3\n", "[let]\n", "\xff\xfe"])
def test_a_broken_file_gets_a_sentence(text, tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError):
        LetConfigManager().parse_args(["--job.config_file", str(path)])
    with pytest.raises(ConfigError, match="No such file"):
        LetConfigManager().parse_args([f"--job.config_file={tmp_path}/none.toml"])


def test_a_teacher_with_another_tokenizer_is_refused(lab):
    teacher = lab.folder / "other"
    shutil.copytree(lab.assets / "teacher", teacher)
    shutil.copytree(lab.assets / "tokenizer", teacher, dirs_exist_ok=True)
    lab.config({}, "--teacher.checkpoint", str(teacher))
    tokenizer = json.loads((teacher / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="differs from the teacher's in 2 tokens"):
        lab.config({}, "--teacher.checkpoint", str(teacher))


def test_every_mistake_is_found_and_the_first_is_raised(lab):
    config = lab.parsed(
        {"k": 9},
        model__converters=["float9", "float10"],
        training__dataset_path="nowhere",
        teacher__checkpoint="./nowhere",
    )
    mistakes = [str(mistake) for mistake in find_mistakes(config)]
    wanted = ["has 'float9'", "has 'float10'", "let.k = 9", "'nowhere' matches no", "not exist"]
    assert all(part in mistake for part, mistake in zip(wanted, mistakes, strict=True))
    with pytest.raises(ConfigError) as error:
        check_config(config)
    assert str(error.value) == mistakes[0]
    assert find_mistakes(lab.parsed({})) == []
    unclear = lab.parsed({"lambda_0": -1.0}, teacher__checkpoint="./nowhere")
    assert len(find_mistakes(unclear)) == 2


def test_every_number_has_a_range():
    """A new key with a number is asked for its range (checks/ranges.py), or to be listed here."""
    unused = ("parallelism.pipeline_parallel_", "parallelism.expert_", "fault_tolerance.")
    numbers = {
        path
        for path, declared in KEYS.items()
        if {int, float} & {declared, *get_args(declared)} and not path.startswith(unused)
    }
    of_the_run = {"let.k", "let.s_stop", "distill.n_kd", "teacher.layer"}  # its steps and blocks
    one_value = {"validation.steps"}  # data.py: -1 has a sentence of its own
    assert numbers - RANGES.keys() == one_value | of_the_run
    assert RANGES.keys() <= KEYS.keys()


@pytest.mark.parametrize("capability", [None, (8, 0), (8, 9), (10, 0)])
def test_low_precision_needs_a_gpu_that_has_it(capability, lab, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    needed = {"quantize.linear.float8": (8, 9), "quantize.linear.mx": (10, 0)}
    for converter, least in needed.items():
        config = lab.parsed(None, "--model.converters", converter)
        mistakes = [str(mistake) for mistake in find_mistakes(config)]
        assert find_mistakes(config, elsewhere=True) == []
        if capability is not None and capability >= least:
            assert mistakes == []
            continue
        found = "here is none" if capability is None else f"this GPU has {capability[0]}."
        assert len(mistakes) == 1 and converter in mistakes[0] and found in mistakes[0]


@pytest.mark.parametrize(("per_node", "refused"), [(None, True), ("3", True), ("2", False)])
def test_a_teacher_within_nodes_needs_to_know_them(per_node, refused, lab, monkeypatch):
    config = lab.parsed({}, "--teacher.placement", "node")
    monkeypatch.setenv("WORLD_SIZE", "4")
    if per_node is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", per_node)
    told = " ".join(map(str, find_mistakes(config)))
    assert ('teacher.placement = "node" needs equally many processes' in told) == refused
    assert find_mistakes(config, 4, elsewhere=True) == []


@pytest.mark.parametrize(
    ("rank", "per_node", "refused"),
    [("0", "3", True), ("2", None, True), ("1", "2", False), ("0", None, False)],
    ids=["rank 0 of three", "the third, no torchrun", "the second of two", "one"],
)
def test_every_process_needs_a_gpu_of_its_own(rank, per_node, refused, lab, monkeypatch):
    """Rank 0 says so, which has one; and no rank goes on to try what only a GPU can tell."""
    monkeypatch.setattr(machine, "HAS_ACCELERATOR", True)
    monkeypatch.setattr(machine, "device_module", SimpleNamespace(device_count=lambda: 2))
    tried = []
    monkeypatch.setattr(machine, "compiled_tensor_parallel_error", lambda _: tried.append(1))
    monkeypatch.setenv("LOCAL_RANK", rank)
    if per_node is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", per_node)
    config = lab.parsed(None, "--parallelism.tensor_parallel_degree=2", "--compile.enable")
    told = " ".join(map(str, find_mistakes(config, 2)))
    sentence, cure = "3 processes were started on this node", "torchrun --nproc_per_node 2,"
    assert (sentence in told) == (cure in told) == refused
    assert bool(tried) != refused
    assert sentence not in " ".join(map(str, find_mistakes(config, 2, elsewhere=True)))


def test_emulated_float8(lab):
    emulated, compiled = "--quantize.linear.float8.emulate", "--compile.enable"
    student = ["--model.converters=quantize.linear.float8"]
    assert find_mistakes(lab.parsed(None, *student, emulated)) == []
    assert find_mistakes(lab.parsed(None, *student, compiled), elsewhere=True) == []
    (told,) = find_mistakes(lab.parsed(None, *student, emulated, compiled))
    assert "cannot be compiled" in str(told)
    recipe = ["--quantize.linear.float8.recipe_name", "rowwise"]
    (told,) = find_mistakes(lab.parsed(None, *student, emulated, *recipe))
    assert "is lost with recipe_name = 'rowwise'" in str(told)
    assert find_mistakes(lab.parsed(None, emulated, *recipe)) == []  # nobody multiplies in float8


def test_what_makes_no_sense_after_a_mistake_is_left_out(lab):
    unclear = lab.parsed({"lambda_0": -1.0, "k": 9, "pairs": ["x"]}, "--model.flavor", "8B")
    mistakes = [str(mistake) for mistake in find_mistakes(unclear)]
    wanted = ["'8B' is unknown", "lambda_0 = -1.0", "let.pairs has 'x'"]
    assert all(part in mistake for part, mistake in zip(wanted, mistakes, strict=True))


def test_a_preflight_names_the_number_of_processes(lab, monkeypatch):
    hsdp = lab.parsed({}, "--parallelism.data_parallel_replicate_degree", "2")
    assert len(find_mistakes(hsdp)) == 1
    assert "1 processes do not make" in str(find_mistakes(hsdp)[0])
    assert find_mistakes(hsdp, world_size=4) == []
    assert data_parallel_degrees(hsdp, 4) == (2, 2)
    assert data_parallel_degrees(hsdp, 2) == (2, 1)
    monkeypatch.delenv("WORLD_SIZE")
    assert data_parallel_degrees(lab.parsed({})) == (1, 1)  # without torchrun one is started


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("key", ["lambda_0", "s_stop_fraction", "alpha", "cca_ridge", "cca_tokens"])
def test_what_is_no_number_is_refused(key, value, lab):
    with pytest.raises(ConfigError, match=rf"let\.{key} = {value} is out of range"):
        lab.config({}, f"--let.{key}", value)
