"""Tasks without a hub: the harness's own, with data that lie in a folder."""

import json
from pathlib import Path

import pytest
import yaml

from let_titan.errors import ConfigError, RunError
from let_titan.evaluate import offline
from let_titan.evaluate.tasks import TASKS

SYNTHETIC = Path("assets/synthetic_tasks")


def test_offline_tasks_are_the_harness_own_with_local_data(tmp_path, capsys):
    data, out, placed = (tmp_path / name for name in ("data", "out", "placed"))
    (data / "piqa").mkdir(parents=True)
    row = json.dumps({"goal": "g", "sol1": "a", "sol2": "b", "label": 0}) + "\n"
    (data / "piqa" / "validation-00000.jsonl").write_text(row)
    assert offline.main([str(data), str(out)]) == 0
    assert capsys.readouterr().out == f"{out} has piqa.\n"
    assert json.loads((out / "piqa" / "validation.jsonl").read_text()) == json.loads(row)
    placed.mkdir()
    assert offline.place_tasks(out, Path("/harness"), placed) == ["piqa"]
    settings = yaml.safe_load((placed / "piqa.yaml").read_text())
    assert settings["include"] == f"/harness/{TASKS['piqa']}"
    assert settings["training_split"] is settings["test_split"] is None
    assert Path(settings["dataset_kwargs"]["data_files"]["validation"]).is_file()
    with pytest.raises(ConfigError, match="no folder named after a task"):
        offline.write_offline(tmp_path / "placed", tmp_path / "other")
    with pytest.raises(RunError, match=r"cannot be written \(File exists\)"):
        offline.write_offline(data, data / "piqa" / "validation-00000.jsonl" / "out")
    assert offline.main([str(data), str(out)]) == 2
    assert "exists: name a new folder" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"has no TASK\.yaml: make the folder with"):
        offline.place_tasks(data, Path("/harness"), placed)


def test_the_shipped_set_has_six_rows_of_every_task():
    assert {path.stem for path in SYNTHETIC.glob("*.yaml")} == set(TASKS)
    for task in TASKS:
        (file,) = (SYNTHETIC / task).glob("*.jsonl")
        assert len(file.read_text().splitlines()) == 6


def test_a_split_in_two_formats_is_told(tmp_path):
    for name in ("train-0.parquet", "train-1.jsonl", "validation.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"files of train in several formats \(\.jsonl, \.parq"):
        offline.splits_of(tmp_path)
    (tmp_path / "train-0.parquet").unlink()
    assert set(offline.splits_of(tmp_path)) == {"train", "validation"}
