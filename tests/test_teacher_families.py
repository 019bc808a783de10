"""Teachers of many families, tiny and random: transformers' own states, whole, cut, by documents.

What is tested throughout are the four of ``tests.teachers.CONFIGS``; these show that nothing in the
loading, the cutting and the masks is theirs alone.
"""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from let_titan.teacher import check_part
from tests.support import relative_error
from tests.teachers import GROUPED, load, tokens

SPECIAL = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1)
OTHER_NAMES = {"ffn_hidden_size": 64, "sliding_window": 5, "attention_chunk_size": 5}
FAMILIES = {
    name: {}
    for name in (
        "arcee",
        "cohere",
        "cohere2",
        "ernie4_5",
        "exaone4",
        "gemma",
        "gemma3_text",
        "glm",
        "glm4",
        "gpt_bigcode",
        "granite",
        "helium",
        "mistral",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "persimmon",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "seed_oss",
        "smollm3",
        "stablelm",
        "starcoder2",
    )
} | {
    "falcon": {"head_dim": None},
    "gemma3_text": {
        "layer_types": [f"{'full' if n == 1 else 'sliding'}_attention" for n in range(4)]
    },
}


def config_of(name):
    """The family's own defaults, with small sizes and, where it has any, a short window."""
    kind = CONFIG_MAPPING[name]
    defaults = kind()
    wanted = {**GROUPED, **SPECIAL, **FAMILIES[name]}
    windows = {k: v for k, v in OTHER_NAMES.items() if getattr(defaults, k, None)}
    fitting = {k: v for k, v in wanted.items() if v is not None and hasattr(defaults, k)}
    return kind(**fitting, **windows)


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request, tmp_path_factory):
    """(folder, transformers' own model)."""
    name = request.param
    if name not in CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {name}")
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config_of(name)).eval()
    folder = tmp_path_factory.mktemp(name)
    model.save_pretrained(folder)
    return folder, model


def test_states_are_transformers_own_whole_and_cut(family):
    folder, model = family
    with torch.no_grad():
        states = model(tokens(), output_hidden_states=True).hidden_states
    check_part(str(folder), ["last", 2])
    last, second = load(folder, ["last", 2])(tokens())
    assert relative_error(last, states[-1]) < 1e-5
    assert relative_error(second, states[2]) < 1e-5
    (first,) = load(folder, [1])(tokens())
    assert relative_error(first, states[1]) < 1e-5


def test_each_document_is_read_alone(family):
    folder, model = family
    check_part(str(folder), ["last"], documents=True)
    lengths = (17, 1, 30)
    positions = torch.cat([torch.arange(n) for n in lengths]).expand(3, -1)
    (found,) = load(folder, ["last"])(tokens(), positions)
    base, *_ = model.children()  # and the head
    with torch.no_grad():
        alone = [base(part).last_hidden_state for part in tokens().split(lengths, dim=1)]
    assert relative_error(found, torch.cat(alone, dim=1)) < 1e-5
    assert relative_error(found, load(folder, ["last"])(tokens())[0]) > 1e-2
