"""Configs: precedence, recipes, and a sentence for each mistake."""

import itertools
import json
import shutil
import tomllib
from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from let_titan.checks import check_config, data_parallel_degrees, find_mistakes
from let_titan.checks.ranges import RANGES
from let_titan.config import RECIPES, LetConfigManager
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan, Pair, parse_pair, resolve_plan
from tests.support import write_toml
from tests.test_fuzz import KEYS

SHIPPED = Path("train_configs")


def test_without_a_let_section_the_run_is_a_baseline(lab):
    config = lab.config(None)
    assert not config.let.enable
    assert resolve_plan(config) == LetPlan()


def test_command_line_beats_toml_beats_recipe_beats_default(lab):
    let = {"recipe": "paper", "lambda_0": 0.3, "s_stop": 5}
    assert lab.config(let).let.lambda_0 == 0.3
    assert lab.config(let, "--let.lambda-0", "0.2").let.lambda_0 == 0.2
    assert lab.config({"lambda_0": 0.3}, "--let.recipe=paper").let.lambda_0 == 0.3
    assert lab.config(let).let.schedule == "linear"


def test_a_recipe_lies_between_what_is_given_and_the_defaults(lab, monkeypatch):
    recipe = {"schedule": "cosine", "k": 1, "lambda_0": 0.7, "s_stop_fraction": 1.0}
    monkeypatch.setitem(RECIPES, "other", recipe)
    for let, args in (({"recipe": "other"}, []), ({}, ["--let.recipe", "other"])):
        config = lab.config(let, *args)
        assert config.let.schedule == "cosine"
        assert (config.let.k, config.let.lambda_0) == (2, 0.5)  # as the TOML says
        assert resolve_plan(config).s_stop == 4
        assert lab.config(let, *args, "--let.schedule=step").let.schedule == "step"
    both = lab.config({"recipe": "paper"}, "--let.recipe", "other")
    assert both.let.recipe == "other" and both.let.schedule == "cosine"


def test_s_stop_in_either_form_and_the_command_lines_form_wins(lab):
    def s_stop(let, *args):
        sections = lab.sections({})
        sections["let"] = {"enable": True, "k": 2, **let}
        path = write_toml(lab.folder / "s.toml", sections)
        config = LetConfigManager().parse_args(["--job.config_file", str(path), *args])
        check_config(config)
        return resolve_plan(config).s_stop

    assert s_stop({"s_stop": 5}) == 5
    assert s_stop({"s_stop_fraction": 0.5}) == 3
    assert s_stop({}) == 1  # 0.15 of 6 steps
    assert s_stop({"s_stop": 5}, "--let.s_stop_fraction", "0.34") == 2
    assert s_stop({"s_stop_fraction": 0.5}, "--let.s-stop=4") == 4
    assert s_stop({"recipe": "paper", "s_stop": 5}) == 5
    assert s_stop({"s_stop_fraction": 0.41}) == 2  # 2.46
    assert s_stop({"s_stop_fraction": 0.43}) == 3  # 2.58
    for let, args in (
        ({"s_stop": 5, "s_stop_fraction": 0.5}, []),
        ({}, ["--let.s-stop", "5", "--let.s_stop_fraction=0.5"]),
    ):
        with pytest.raises(ConfigError, match="both set"):
            s_stop(let, *args)
    with pytest.raises(ConfigError, match=r"let\.s_stop = 0 must lie between"):
        s_stop({"s_stop": 0})
    with pytest.raises(ConfigError, match=r"let\.s_stop = 0 must lie between"):
        s_stop({"s_stop_fraction": 0.5}, "--let.s_stop", "0")


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
        ({"lambda_0": -0.1}, [], "let.lambda_0 = -0.1 must be"),
        ({"lambda_0": float("inf")}, [], "let.lambda_0 = inf must be"),
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
        ({}, ["--parallelism.expert_parallel_degree", "2"], "the student has no experts"),
        ({}, ["--comm.mode", "fake_backend"], "nothing is trained in torchtitan's dry runs"),
        ({}, ["--lr_scheduler.total_steps", "5"], "less than training.steps = 6"),
        ({}, ["--job.custom_config_module", "json"], "has no attribute 'JobConfig'"),
        ({}, ["--experimental.custom_import", "none.such"], "'none.such' cannot be imported"),
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


def test_every_number_has_a_range():
    """A new key with a number is asked for its range (checks/ranges.py), or to be listed here."""
    own_checks = ("let.", "teacher.", "distill.")
    unused = ("parallelism.pipeline_parallel_", "parallelism.expert_", "fault_tolerance.")
    numbers = {
        path
        for path, declared in KEYS.items()
        if {int, float} & {declared, *get_args(declared)}
        and not path.startswith((*own_checks, *unused))
    }
    one_value = {"validation.steps"}  # data.py: -1 has a sentence of its own
    assert numbers - RANGES.keys() == one_value
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


def test_emulated_float8(lab):
    emulate = ["--model.converters=quantize.linear.float8", "--quantize.linear.float8.emulate"]
    assert find_mistakes(lab.parsed(None, *emulate)) == []
    (told,) = find_mistakes(lab.parsed(None, *emulate, "--compile.enable"))
    assert "cannot be compiled" in str(told)
    recipe = ["--quantize.linear.float8.recipe_name", "rowwise"]
    (told,) = find_mistakes(lab.parsed(None, *emulate, *recipe))
    assert "is lost with recipe_name = 'rowwise'" in str(told)


def test_what_makes_no_sense_after_a_mistake_is_left_out(lab):
    unclear = lab.parsed({"lambda_0": -1.0, "k": 9, "pairs": ["x"]}, "--model.flavor", "8B")
    mistakes = [str(mistake) for mistake in find_mistakes(unclear)]
    wanted = ["'8B' is unknown", "lambda_0 = -1.0", "let.pairs has 'x'"]
    assert all(part in mistake for part, mistake in zip(wanted, mistakes, strict=True))


def test_a_preflight_names_the_number_of_processes(lab):
    hsdp = lab.parsed({}, "--parallelism.data_parallel_replicate_degree", "2")
    assert len(find_mistakes(hsdp)) == 1
    assert "1 processes do not make" in str(find_mistakes(hsdp)[0])
    assert find_mistakes(hsdp, world_size=4) == []
    assert data_parallel_degrees(hsdp, 4) == (2, 2)
    assert data_parallel_degrees(hsdp, 2) == (2, 1)


def test_pairs_are_read():
    letters = {"E": 2, "M": 3, "L": 6}
    assert parse_pair("last:3:0.5", letters) == Pair("last", 3, 0.5)
    assert parse_pair("middle:6", letters) == Pair("middle", 6, 1.0)
    assert parse_pair("12:1:2", letters) == Pair(12, 1, 2.0)
    assert parse_pair("L2E", letters) == Pair("last", 2, 1.0)
    assert parse_pair("M2L:0.5", letters) == Pair("middle", 6, 0.5)
    for wrong in ("E2L", "L2X", "L2E:1:1", "L2E:x", "2", ""):
        with pytest.raises(ConfigError, match=r"let\.pairs has"):
            parse_pair(wrong, letters)


def test_pairings_are_named(lab):
    plan = resolve_plan(lab.config({"pairs": ["L2E", "L2M:0.5", "M2L"], "k": 1}))
    wanted = (Pair("last", 1), Pair("last", 2, 0.5), Pair("middle", 4))  # of four blocks
    assert plan.pairs == wanted


values = st.one_of(
    st.integers(-5, 50),
    st.floats(),
    st.booleans(),
    st.text(max_size=5).filter(str.isascii),
    st.lists(st.sampled_from(["last:1:1", "x", "1:2:3", "last:2:nan"]), max_size=2),
)
LET_KEYS = ("k", "lambda_0", "s_stop", "s_stop_fraction", "schedule", "loss", "pairs", "recipe")
TEACHER_KEYS = ("layer", "placement", "dtype", "trust_remote_code", "tokenizer")
keys = [*(f"let__{key}" for key in LET_KEYS), *(f"teacher__{key}" for key in TEACHER_KEYS)]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.sampled_from(keys), values, max_size=4))
def test_any_values_are_refused_in_words_or_make_a_sane_plan(changes, lab):
    changes = {key: value for key, value in changes.items() if value == value}  # nan is below
    try:
        plan = resolve_plan(lab.config({}, **changes))
    except ConfigError as error:
        assert len(str(error)) > 20
        return
    for pair in plan.pairs:
        assert 1 <= pair.block <= 4 and pair.weight > 0
    assert all(plan.lambda_in(step) >= 0 for step in range(1, 8))
    assert plan.lambda_in(plan.s_stop + 1) == 0


@pytest.mark.parametrize("key", ["lambda_0", "s_stop_fraction"])
def test_nan_is_refused(key, lab):
    with pytest.raises(ConfigError, match=rf"let\.{key} = nan must be"):
        lab.config({}, f"--let.{key}", "nan")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("demo*.toml")), ids=lambda path: path.stem)
def test_the_demos_configs_hold(path):
    config = LetConfigManager().parse_args(["--job.config_file", str(path)])
    check_config(config)
    assert not config.checkpoint.last_save_model_only


def test_twins_differ_only_where_they_may():
    twins = [
        (path, path.with_name(f"{path.stem.removesuffix('_baseline')}.toml"))
        for path in SHIPPED.glob("*_baseline.toml")
    ]
    assert twins
    for baseline, let in (map(read, pair) for pair in twins):
        assert "let" not in baseline and "teacher" not in baseline
        for section, key in {
            (s, k) for s, v in itertools.chain(baseline.items(), let.items()) for k in v
        }:
            if section in ("let", "teacher") or (section, key) in MAY_DIFFER:
                continue
            assert baseline[section][key] == let[section][key], (section, key)


MAY_DIFFER = {("job", "description"), ("job", "dump_folder")}


def read(path: Path):
    return tomllib.loads(path.read_text())
