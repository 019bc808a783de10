"""What the evaluations take for a model: Hugging Face folders, checkpoints, runs."""

from types import SimpleNamespace
from unittest import mock

import pytest

from let_titan.errors import ConfigError
from let_titan.evaluate import __main__ as command_line
from let_titan.evaluate.models import find_model, find_models
from tests.exported import student, write_run


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="no tokenizer"):
        find_model(tmp_path, tmp_path / "exports")


def test_a_runs_own_config_json_makes_it_no_hugging_face_folder(tmp_path):
    """torchtitan's job.save_config_file may be of that name."""
    for name in ("config.json", "summary.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match="checkpoint"):
        find_model(tmp_path, tmp_path / "exports")


def test_one_run_is_of_one_checkpoint(tmp_path):
    """Of another run's, too, the results would be noted in this one."""
    with pytest.raises(ConfigError, match="is the run of one checkpoint, and 2 PATHs are given"):
        find_models([tmp_path / "a", tmp_path / "b"], tmp_path / "exports", tmp_path / "run", None)


def test_the_tasks_find_a_checkpoint_that_left_its_run(assets, tmp_path, monkeypatch):
    checkpoint = write_run(tmp_path / "run", student("debug"), "debug", assets / "tokenizer")
    step = checkpoint.rename(tmp_path / "step-3")
    (tmp_path / "run" / "checkpoint").rmdir()
    models = []
    monkeypatch.setattr(command_line, "Harness", lambda python: SimpleNamespace(versions={}))
    monkeypatch.setattr(command_line, "harness_python", lambda: None)
    monkeypatch.setattr(command_line, "evaluate", lambda model, *_: models.append(model) or {})
    monkeypatch.setattr(command_line, "table", mock.Mock(average=lambda results: None))
    moved = ["--run", str(tmp_path / "run"), "--tokenizer", str(assets / "tokenizer")]
    assert command_line.main([str(step), "--out", str(tmp_path / "out"), *moved]) == 0
    assert (models[0].run, models[0].step) == (tmp_path / "run", 3)
