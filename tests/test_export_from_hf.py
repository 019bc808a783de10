"""Import: a Hugging Face Llama becomes a checkpoint that a run starts from."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from let_titan.checkpoint.checksums import damaged_files
from let_titan.export.folder import export
from let_titan.export.from_hf import main
from let_titan.export.shape import config_json
from let_titan.export.source import find_source
from let_titan.student import FLAVORS, LetTransformer
from let_titan.train import LetTrainer
from tests.conftest import VOCAB
from tests.exported import same_logits, student, with_weights, write_run
from tests.support import weights


def hugging_face_llama(folder, **changes):
    """A Llama of the debug flavor's shape, as transformers itself saves it."""
    args = FLAVORS["debug"]
    args.vocab_size, args.max_seq_len = VOCAB, 64
    settings = config_json(args, torch.float32) | {"initializer_range": 0.05} | changes
    torch.manual_seed(5)
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings)).eval()
    model.save_pretrained(folder)
    return model


def started_from(lab, checkpoint, **changes):
    """The weights with which a run that starts from ``checkpoint`` begins."""
    start = {"checkpoint__enable": True, "checkpoint__initial_load_path": str(checkpoint)}
    config = lab.config(**start, **changes)
    trainer = LetTrainer(config)
    try:
        assert trainer.checkpointer.load()
        return weights(trainer.model_parts[0])
    finally:
        trainer.close()


@pytest.mark.parametrize("tied", [False, True])
def test_a_run_starts_with_the_models_logits(tied, lab, tmp_path, capsys):
    hugging_face_llama(tmp_path / "hf", tie_word_embeddings=tied)
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 0
    assert 'model.flavor = "debug"' in capsys.readouterr().out
    assert damaged_files(tmp_path / "dcp") == []
    assert same_logits(with_weights(started_from(lab, tmp_path / "dcp")), tmp_path / "hf")


def test_export_and_import_are_each_others_inverse(lab, assets, tmp_path):
    model = student("debug", seed=3)
    write_run(tmp_path / "origin", model, "debug", assets / "tokenizer")
    export(find_source(tmp_path / "origin"), tmp_path / "hf")
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 0
    found = started_from(lab, tmp_path / "dcp")
    assert found.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name], tensor), name
    export(find_source(tmp_path / "dcp", run=tmp_path / "origin"), tmp_path / "again")
    first, second = (load_file(tmp_path / x / "model.safetensors") for x in ("hf", "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "changes",
    [
        {"rms_norm_eps": 1e-6},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}},
    ],
    ids=["epsilon", "scaling"],
)
def test_a_llama_that_no_flavor_computes_is_refused(changes, tmp_path, capsys):
    hugging_face_llama(tmp_path / "hf", **changes)
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 2
    assert "No flavor computes" in capsys.readouterr().err
    assert not (tmp_path / "dcp").exists()


def test_a_users_flavor_is_taken(tmp_path, monkeypatch, capsys):
    hugging_face_llama(tmp_path / "hf", rms_norm_eps=1e-6)
    (tmp_path / "other_epsilon.py").write_text(
        "from dataclasses import replace\n"
        "from let_titan.student import FLAVORS\n"
        "FLAVORS['other'] = replace(FLAVORS['debug'], norm_eps=1e-6)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(FLAVORS, "data", dict(FLAVORS.data))  # "other" is taken out after the test
    arguments = [str(tmp_path / "hf"), str(tmp_path / "dcp")]
    assert main([*arguments, "--custom-import", "other_epsilon"]) == 0
    assert 'model.flavor = "other"' in capsys.readouterr().out
    assert main([*arguments, "--custom-import", "none.such"]) == 2
    assert "--custom-import = 'none.such' cannot be imported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hidden_act": "gelu"}, "has the hidden_act 'gelu' that the student cannot compute"),
        ({"attention_bias": True}, "give a Llama without biases"),
        ({"mlp_bias": True}, "give a Llama without biases"),
    ],
    ids=["activation", "biases of attention", "biases of the MLP"],
)
def test_a_llama_of_other_parts_is_refused(changes, sentence, tmp_path, capsys):
    hugging_face_llama(tmp_path / "hf", **changes)
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "dcp").exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    hugging_face_llama(tmp_path / "hf")
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / "note").write_text("mine")
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 2
    assert "exists: name a new folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "dcp").iterdir()] == ["note"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x.pop("lm_head.weight"), "does not tie it to the embedding"),
        (
            lambda x: x.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(16)}),
            "have model.layers.0.self_attn.q_norm.weight, which the student has no place for",
        ),
        (
            lambda x: x.update({"model.layers.99.input_layernorm.weight": torch.ones(64)}),
            "have model.layers.99.input_layernorm.weight, which the student has no place for",
        ),
    ],
    ids=["no head", "unknown", "another layer"],
)
def test_weights_of_another_model_are_told(change, sentence, tmp_path, capsys):
    hugging_face_llama(tmp_path / "hf")
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "dcp").exists()


def test_another_theta_is_a_key_of_the_run(lab, tmp_path, capsys):
    theta = {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    hugging_face_llama(tmp_path / "hf", **theta)
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 0
    assert 'model.flavor = "debug", model.rope_theta = 500000.0 and' in capsys.readouterr().out
    found = started_from(lab, tmp_path / "dcp", model__rope_theta=5e5)
    for key, same in ((5e5, True), (1e4, False)):
        args = FLAVORS["debug"]
        args.update_from_config(lab.config(None, model__rope_theta=key))
        model = LetTransformer(args)
        with torch.no_grad():
            model.init_weights()
        model.load_state_dict(found)
        assert same_logits(model, tmp_path / "hf") == same


def test_missing_weights_and_other_architectures_are_told(tmp_path, capsys):
    hugging_face_llama(tmp_path / "hf")
    (tmp_path / "hf" / "model.safetensors").unlink()
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 2
    assert "copy all *.safetensors" in capsys.readouterr().err
    (tmp_path / "hf" / "config.json").write_text("{")
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 2
    assert "has no config.json that can be read" in capsys.readouterr().err
    settings = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings))
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 2
    assert "is a gpt2" in capsys.readouterr().err


def test_a_weight_that_two_files_hold_is_refused(tmp_path, capsys):
    hugging_face_llama(tmp_path / "hf")
    shutil.copy(tmp_path / "hf" / "model.safetensors", tmp_path / "hf" / "old.safetensors")
    assert main([str(tmp_path / "hf"), str(tmp_path / "dcp")]) == 2
    assert "stands in old.safetensors and in another file of" in capsys.readouterr().err
