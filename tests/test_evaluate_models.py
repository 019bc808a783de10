"""What the evaluations take for a model: Hugging Face folders, checkpoints, runs."""

import pytest

from let_titan.errors import ConfigError
from let_titan.evaluate.models import find_model


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
