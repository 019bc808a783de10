"""docs/extend.md: its code, as it stands there, against float64 and plain autograd."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, LlamaConfig, LlamaForCausalLM

from let_titan.alignment import LOSSES, of_tokens
from let_titan.errors import ConfigError
from let_titan.export.__main__ import main as export
from let_titan.export.folder import export as export_source
from let_titan.export.source import find_source
from let_titan.preflight.__main__ import main as preflight
from let_titan.probe.__main__ import main as probe
from let_titan.schedule import SHAPES
from let_titan.student import FLAVORS
from tests.conftest import VOCAB
from tests.exported import same_logits, student
from tests.support import SEQ_LEN, FixedBatches, one_step, weights, worst_gradient, write_toml
from tests.test_alignment import reference
from tests.test_gradients import float64_twin
from tests.whole_runs import trained

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text()
MODULE, TRAINER = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
(CONFIG,) = map(tomllib.loads, re.findall(r"```toml\n(.*?)```", PAGE, flags=re.S))
KEYS = {
    "experimental__custom_import": CONFIG["experimental"]["custom_import"],
    "model__flavor": CONFIG["model"]["flavor"],
}
ADDED = ((LOSSES, "angle"), (SHAPES, "quadratic"), (FLAVORS, "small"))


def forget():
    """Leaves let_titan as a new process finds it."""
    sys.modules.pop("mine", None)
    for table, name in ADDED:
        table.pop(name, None)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The page's module can be imported."""
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    forget()


def angle(hidden, teacher, mask):
    """The page's loss in float64, with the interpolation as torch has it."""
    wide = F.interpolate(teacher.double(), hidden.shape[-1], mode="linear", align_corners=False)
    return F.cosine_similarity(hidden.double(), wide, dim=-1).acos()[mask].sum()


def test_its_loss_and_its_student_give_float64s_gradient(mine, assets, lab):
    config = lab.config({**CONFIG["let"], "k": 2}, training__local_batch_size=8, **KEYS)
    found = one_step(config)
    told = {"k": 2, "lambda_0": 0.5, "loss": angle, "flavor": "small"}
    model, nll, alignment = float64_twin(assets, found["weights"], **told)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert worst_gradient(found["gradients"], gradients) < 2e-5
    assert found["line"]["loss_metrics/global_avg_loss"] == pytest.approx(nll, rel=1e-6)
    assert found["line"]["let/align_loss"] == pytest.approx(alignment, rel=1e-5)


def test_its_schedule_and_its_student_in_a_run_and_an_export(mine, lab, tmp_path):
    model = trained(lab, CONFIG["let"], **KEYS).model_parts[0]
    twin = student("small")
    lines = (lab.folder / "run" / "metrics.jsonl").read_text().splitlines()
    found = [line["lambda"] for line in map(json.loads, lines) if "loss" in line]
    assert found == pytest.approx([0.5 * (1 - s / 4) ** 2 for s in range(4)])
    assert export([str(lab.folder / "run"), str(tmp_path / "hf")]) == 0
    twin.load_state_dict(weights(model))
    assert same_logits(twin, tmp_path / "hf")


def test_an_export_asks_for_no_module(mine, lab, tmp_path):
    """The run's summary.json says what its flavor was, whatever the module has become."""
    model = trained(lab, CONFIG["let"], **KEYS).model_parts[0]
    twin = student("small")
    forget()
    (tmp_path / "mine.py").unlink()
    export_source(find_source(lab.folder / "run"), tmp_path / "hf")
    twin.load_state_dict(weights(model))
    assert same_logits(twin, tmp_path / "hf")


def test_a_resume_notices_another_student_of_the_same_name(mine, lab, tmp_path):
    steps = {"checkpoint__enable": True, "checkpoint__interval": 2, **KEYS}
    trained(lab, CONFIG["let"], **steps)
    forget()
    changed = MODULE.replace("multiple_of=32", "multiple_of=32, norm_eps=0.1")
    assert changed != MODULE
    (tmp_path / "mine.py").write_text(changed)
    told = r"student had norm_eps = 1e-05, where 'small' now has 0.1: set the flavor to what it"
    with pytest.raises(ConfigError, match=told):
        lab.config(CONFIG["let"], **steps, training__steps=8)


@pytest.mark.parametrize("table", [LOSSES, SHAPES, FLAVORS], ids=["loss", "schedule", "flavor"])
def test_no_name_is_given_twice(table):
    """Else a run's summary.json, its export and its resume would mean different things by it."""
    name, thing = next(iter(table.items()))
    with pytest.raises(ValueError, match=f"'{name}' is taken by .*: choose another name"):
        table[name] = thing
    with pytest.raises(ValueError, match="is taken"):
        table.update({name: thing})


def whole(state, target):
    return (state - target).square().mean()


def rows(state, target):
    return (state - target).square().mean((-1, -2))


@pytest.mark.parametrize("loss", [whole, rows])
def test_a_loss_that_is_no_number_a_token_is_refused(loss):
    """Broadcast, it would count once a token."""
    states = torch.randn(4, 4, 8)
    with pytest.raises(ValueError, match=r"makes \[4, 4\] of states \[4, 4, 8\]"):
        of_tokens(loss)(states, states + 1, torch.ones(4, 4, dtype=torch.bool))


def test_preflight_prices_it(mine, lab, no_world, capsys):
    file = write_toml(lab.folder / "mine.toml", lab.sections(CONFIG["let"], **KEYS))
    assert preflight(["--job.config_file", str(file), "--world-size", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["price"]["student"]
    assert found["parameters"] == sum(p.numel() for p in student("small").parameters())


def test_a_probe_knows_how_many_blocks_it_has(mine, lab, no_world, capsys):
    file = write_toml(lab.folder / "mine.toml", lab.sections(CONFIG["let"], **KEYS))
    assert probe(["--job.config_file", str(file), "--blocks", "4"]) == 2
    assert "must lie between 1 and 3, the blocks of 'small'" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "words"), [("loss", "cosine, logsum"), ("schedule", "linear, ")])
def test_a_name_that_nobody_added(key, words, lab):
    with pytest.raises(ConfigError, match=f"let.{key} = 'mine': choose from {words}"):
        lab.config({key: "mine"})


class Noted:
    """Stands for an optimizer: keeps what it would apply, and leaves the weights as they are."""

    def __init__(self, model):
        self.model, self.steps = model, []

    def step(self):
        self.steps.append({name: p.grad.clone() for name, p in self.model.named_parameters()})

    def zero_grad(self):
        self.model.zero_grad()


def plain_gradients(model, assets, k, weight, tokens, labels):
    """NLL + weight * L_proj, differentiated by torch alone."""
    model.zero_grad()
    mask = labels != -100
    output = model(tokens, output_hidden_states=True)
    loss = F.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
    with torch.no_grad():
        target = AutoModel.from_pretrained(assets / "teacher").eval()(tokens).last_hidden_state
    loss = loss + weight * reference(output.hidden_states[k], target, mask) / mask.sum()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_the_alignment_in_another_trainer(assets):
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, num_hidden_layers=4, **shape))
    data = FixedBatches(VOCAB, rows=6, micro=2, rank=0, ranks=1)
    batches = list(zip(data.inputs, data.labels, strict=True))
    optimizer = Noted(model)
    code = TRAINER.replace("HuggingFaceTB/SmolLM2-135M", str(assets / "teacher"))
    code = code.replace("S_STOP = 3, 0.1, 1500", "S_STOP = 3, 0.1, 2")
    given = {"student": model, "optimizer": optimizer, "batches": batches, "seq_len": SEQ_LEN}
    names = {**given, "device": torch.device("cpu")}
    exec(code.replace("bfloat16", "float32"), names)
    names["attached"].clear()  # the page's hook stays
    for batch, weight, found in zip(batches, (0.1, 0.05, 0.0), optimizer.steps, strict=True):
        assert worst_gradient(found, plain_gradients(model, assets, 3, weight, *batch)) < 1e-5
    assert names["teacher"] is None
