"""A teacher of ``.bin`` or GGUF files is converted; what cannot teach is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig

from let_titan.errors import ConfigError
from let_titan.teacher import check_part, check_teacher, prepare_teacher
from tests.support import relative_error
from tests.teachers import BF16_ERROR, CONFIGS, load, tokens, untouched

GGUF = Path("assets/teachers/SmolLM2-135M-Instruct.Q4_1.gguf")  # scripts/fetch_teacher.py brings it


def test_bin_weights_are_converted_once(teachers, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "bin"
    model = AutoModelForCausalLM.from_pretrained(teachers / "llama")
    model.config.save_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    (source / "tokenizer").mkdir()  # as a library of another language keeps its own
    folder = prepare_teacher(str(source))
    assert folder.parent == tmp_path / "cache" and any(folder.glob("*.safetensors"))
    for found, wanted in zip(load(folder)(tokens()), untouched(teachers / "llama"), strict=True):
        assert relative_error(found, wanted) < 1e-5
    monkeypatch.setattr("let_titan.teacher.sources.convert_bin", pytest.fail)
    assert prepare_teacher(str(source)) == folder


class Bomb:
    def __reduce__(self):
        return (Path("exploded").write_text, ("boom",))


def test_a_bin_file_that_would_run_code_is_refused(teachers, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "bin"
    CONFIGS["llama"].save_pretrained(source)
    torch.save({"model.norm.weight": Bomb()}, source / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"cannot be read as weights only"):
        prepare_teacher(str(source))
    assert not Path("exploded").exists()
    assert not list((tmp_path / "cache").glob("*/config.json"))


def test_gguf_against_transformers_own_reading(tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    folder = prepare_teacher(str(GGUF))
    teacher = load(folder, ["last", 15], torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(
        GGUF.parent, gguf_file=GGUF.name, dtype=torch.float32
    )
    with torch.no_grad():
        states = model.eval()(tokens(), output_hidden_states=True).hidden_states
    for found, wanted in zip(teacher(tokens()), (states[-1], states[15]), strict=True):
        assert relative_error(found, wanted) < 2 * BF16_ERROR  # 30 blocks


def test_loading_draws_nothing_from_the_random_state(teachers, tmp_path, monkeypatch):
    monkeypatch.setenv("LET_TITAN_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "bin"
    model = AutoModelForCausalLM.from_pretrained(teachers / "opt")
    model.config.save_pretrained(source)
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    before = torch.random.get_rng_state()
    load(prepare_teacher(str(source)))(tokens())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weights_that_do_not_fit_are_named(teachers, tmp_path):
    folder = tmp_path / "broken"
    model = AutoModelForCausalLM.from_pretrained(teachers / "llama")
    model.save_pretrained(folder)
    model.config.num_hidden_layers = 5
    model.config.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"model\.layers\.4\..* is missing"):
        load(folder)
    model.config.num_hidden_layers, model.config.intermediate_size = 4, 128
    model.config.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"mlp\..* has shape"):
        load(folder)


def test_a_weight_that_two_files_hold_is_refused(teachers, tmp_path):
    """Which of the two would be read depends on the order in which the folder lists them."""
    folder = tmp_path / "twice"
    shutil.copytree(teachers / "llama", folder)
    shutil.copy(folder / "model.safetensors", folder / "old-00001-of-00001.safetensors")
    with pytest.raises(ConfigError, match=r"more than one file of .*: leave only"):
        check_part(str(folder), ["last"])


def test_what_cannot_teach_is_refused(teachers, tmp_path):
    BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "bert")
    llama = str(teachers / "llama")
    for arguments, sentence in (
        ((str(tmp_path / "bert"), 64, [], 320), "not a causal language model"),
        ((llama, 256, [], 320), "longer than the teacher's context of 128"),
        ((llama, 64, [5], 320), "Teacher layer 5 does not exist"),
        ((llama, 64, [], 321), "knows 320 ids"),
        (("./nowhere", 64, [], 320), "does not exist"),
        ((str(tmp_path), 64, [], 320), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            check_teacher(*arguments)


def test_quantized_weights_are_refused_whether_the_config_says_so_or_not(teachers, tmp_path):
    """Read as they are stored, the values of FP8 weights are off by their scales."""
    folder = tmp_path / "fp8"
    shutil.copytree(teachers / "llama", folder)
    (file,) = folder.glob("*.safetensors")
    save_file(
        {
            name: value.to(torch.float8_e4m3fn) if "proj" in name else value
            for name, value in load_file(file).items()
        },
        file,
    )
    with pytest.raises(ConfigError, match=r"_proj\.weight' in .* is quantized \(torch\.float8"):
        check_part(str(folder), ["last"])
    # As scales are stored, in a dtype that safetensors has no torch dtype for
    file.write_bytes(file.read_bytes().replace(b"F8_E4M3", b"F8_E8M0"))
    with pytest.raises(ConfigError, match=r"^The teacher's .* is quantized \(.* without scales"):
        check_part(str(folder), ["last"])
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"is quantized \(fp8\), and here .* without scales"):
        check_teacher(str(folder), 64, [], 320)
