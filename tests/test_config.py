"""Configs: precedence, recipes, s_stop, pairs and the shipped twins."""

import itertools
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from let_titan.checks import check_config
from let_titan.config import RECIPES, LetConfigManager
from let_titan.errors import ConfigError
from let_titan.plan import LetPlan, Pair, parse_pair, resolve_plan
from tests.support import write_toml

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
