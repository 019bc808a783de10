"""Step 1 with LET on, as long runs take it: in low precision, compiled, checkpointed.

The same tests on a CPU and, with ``pytest -m gpu``, on a GPU, each against eager fp32 there.
"""

import pytest
import torch
from torchtitan.tools.utils import device_type

from let_titan.train import LetTrainer
from tests.support import SEQ_LEN, cosine, one_step, use_fixed_batches, worst_gradient
from tests.test_gradients import LET, alignment_only

ON_BOTH = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
BATCH = {"training__local_batch_size": 8}
BF16 = {"training__mixed_precision_param": "bfloat16"}
COMPILE = {"compile__enable": True}
OP_AC = {
    "activation_checkpoint__mode": "selective",
    "activation_checkpoint__selective_ac_option": "op",
}
LOGGED = ("loss_metrics/global_avg_loss", "let/align_loss", "let/align_cosine")
FLOAT8 = ["--model.converters", "quantize.linear.float8"]


@pytest.fixture(autouse=True)
def there(request):
    wanted = request.node.callspec.params["device"]
    if wanted != device_type:
        pytest.skip(f"runs take the {device_type} here")


@ON_BOTH
def test_bf16_and_checkpointing_stay_close(device, lab):
    """Compiled, too, on a GPU."""
    wanted = one_step(lab.config(LET, **BATCH))
    compiled = COMPILE if device == "cuda" else {}
    found = one_step(lab.config(LET, **BATCH, **BF16, **OP_AC, **compiled))
    assert cosine(found["gradients"], wanted["gradients"]) > 0.999
    assert worst_gradient(found["gradients"], wanted["gradients"]) > 1e-5  # bf16 was on
    for key in LOGGED:
        # The alignment of new weights is near zero, and a GPU draws others than a CPU.
        assert found["line"][key] == pytest.approx(wanted["line"][key], rel=0.02, abs=3e-4), key


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
def test_compiled_in_fp32_is_eager(device, lab):
    """On a CPU this is test_gradients.py's."""
    wanted = one_step(lab.config(LET, **BATCH))
    found = one_step(lab.config(LET, **BATCH, **COMPILE))
    assert worst_gradient(found["gradients"], wanted["gradients"]) < 1e-4
    for key in LOGGED:
        assert found["line"][key] == pytest.approx(wanted["line"][key], rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
def test_float8_keeps_the_alignments_direction(device, lab):
    """Real float8, compiled, in bf16; emulated on a CPU in test_gradients.py."""
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("float8 needs compute capability 8.9")
    found = alignment_only(lab, FLOAT8, **BF16, **COMPILE)
    wanted = alignment_only(lab, [])
    assert cosine(found, wanted) >= 0.99
    assert worst_gradient(found, alignment_only(lab, [], **BF16, **COMPILE)) > 1e-3  # it was on


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise"])
def test_a_float8_teacher_keeps_the_alignments_direction(device, recipe, lab):
    """Real float8, compiled; emulated on a CPU in test_teacher_float8.py."""
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("float8 needs compute capability 8.9")
    args = ["--teacher.float8", "--quantize.linear.float8.recipe_name", recipe]
    args += ["--teacher.dtype", "bfloat16"]
    found = alignment_only(lab, args, **BF16, **COMPILE)
    plain = alignment_only(lab, ["--teacher.dtype", "bfloat16"], **BF16, **COMPILE)
    assert cosine(found, plain) >= 0.9
    assert worst_gradient(found, plain) > 1e-3  # it was on


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_host_does_not_wait_from_the_teachers_forward_to_the_guards_answer(
    device, lab, monkeypatch
):
    """Eager. In the first step what is made once may be waited for."""
    trainer = LetTrainer(lab.config(LET, **BATCH, **BF16))
    batches = use_fixed_batches(trainer)

    def watch(whose, name):
        taken = getattr(whose, name)

        def watched(*arguments, **named):
            torch.cuda.set_sync_debug_mode("default" if trainer.step == 1 else "error")
            try:
                return taken(*arguments, **named)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        monkeypatch.setattr(whose, name, watched)

    watch(trainer, "forward_backward_step")
    watch(trainer.guard, "_flags")
    watch(trainer.guard, "_gathered")
    for step in (1, 2):
        trainer.step = step
        trainer.train_step(batches)
    assert trainer.phase.slot.teacher is not None
    trainer.close()


@ON_BOTH
def test_a_run_to_its_end(device, lab):
    """Validation and checkpoints included, which no other test takes to a GPU."""
    validation = {"enable": True, "dataset": "pile", "seq_len": SEQ_LEN, "steps": 2, "freq": 100}
    validation["dataset_path"] = str(lab.assets / "validation.jsonl")
    keys = {f"validation__{key}": value for key, value in validation.items()}
    keys |= {"checkpoint__enable": True, "checkpoint__interval": 4, **BF16}
    trainer = LetTrainer(lab.config({}, **keys, **(COMPILE if device == "cuda" else {})))
    trainer.train()
    losses = {x["step"]: x["val_loss"] for x in trainer.run_folder.file.lines() if "val_loss" in x}
    trainer.close()
    assert list(losses) == [0, 4, 6] and losses[6] < losses[0]
    assert len(list(trainer.checkpointer.path.glob("step-*/.metadata"))) == 2
