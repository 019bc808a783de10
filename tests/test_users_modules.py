"""Modules of the user's own: what they add to the config, and to torchtitan's parts."""

import pytest
import torchtitan.protocols.model_converter as model_converter
from torchtitan.hf_datasets.text_datasets import DATASETS

from let_titan.errors import ConfigError

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
    (lab.folder / "broken_keys.py").write_text("a b")
    with pytest.raises(ConfigError, match=r"custom_config_module cannot be used \(invalid syntax"):
        lab.config({}, job__custom_config_module="broken_keys")


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
