"""A sentence for each mistake in a config."""

import json
import shutil
from typing import get_args

import pytest

from let_titan.checks import check_config, data_parallel_degrees, find_mistakes
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
        ({}, ["--model.flavor", "9B"], "model.flavor = '9B' is unknown"),
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
        (
            {},
            ["--parallelism.expert_parallel_comm_backend", "deepep"],
            "the student has no experts",
        ),
        ({}, ["--debug.moe_force_load_balance"], "the student has no experts"),
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


def test_an_old_tokenizer_file_is_told(lab):
    old = lab.folder / "tokenizer.model"
    old.write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")  # as SentencePiece's begin
    with pytest.raises(ConfigError, match=r"SentencePiece tokenizer\.model needs its Hugging"):
        lab.config(None, model__hf_assets_path=str(old))


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


def test_what_makes_no_sense_after_a_mistake_is_left_out(lab):
    unclear = lab.parsed({"lambda_0": -1.0, "k": 9, "pairs": ["x"]}, "--model.flavor", "9B")
    mistakes = [str(mistake) for mistake in find_mistakes(unclear)]
    wanted = ["'9B' is unknown", "lambda_0 = -1.0", "let.pairs has 'x'"]
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
