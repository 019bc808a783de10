"""What is asked, written down before the first run."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.arms import BASELINE, LET, SALT

HYPOTHESES = {
    "common": (
        "Most of the cosine that LET comes to with lambda_0 = 1 is the teacher's common direction: "
        "block k is more than half as close to the teacher's state of any other token."
    ),
    "readout": (
        "A linear readout predicts the next token from LET's block k no better than from the "
        "baseline's (by 0.05 nats), with either weight, raw or centred; from the teacher's states "
        "and from SALT's block k it does."
    ),
    "angle": (
        "At block k the gradients of alignment and NLL are at right angles: their cosine, mean "
        "over steps, is less than 0.05 on either side of zero, with either weight, raw or centred."
    ),
    "steps": (
        "In the weights that it reaches, the alignment's gradient of a batch has less than a tenth "
        "of the cosine to the held-out NLL's gradient that the batch's own NLL gradient has; the "
        "gradient of the KL to the teacher has more than that, since the teacher's distribution "
        "says of all tokens what a label says of one."
    ),
    "embedding": (
        "(Written when it was known that the best vector for each id, without context, comes to a "
        "cosine of 0.77.) The embeddings hold LET back: of deviation 1, they are moved by no more "
        "than the sum of the learning rates, 0.24 in 120 steps. From llama's initial embeddings, "
        "of deviation 0.02, block k comes to more than twice the cosine with lambda_0 = 1."
    ),
}
CENTRED = {"let.teacher_norm": "center"}
STRONG = {"let.lambda_0": "1"}
SMALL = {"model.init_scheme": "llama"}


def until_120() -> dict[str, Mapping[str, str]]:
    """Returns the arms; a teacher stays for the steps that it stays in the lab's whole runs."""
    let = {**LET, "let.s_stop": "120", "let.diagnostics_freq": "3"}
    return {
        "baseline": BASELINE,
        "LET 1": {**let, **STRONG},
        "SALT": SALT,
        "LET 0.1": let,
        "LET 1, centred": {**let, **STRONG, **CENTRED},
        "baseline, llama": SMALL,
        "LET 1, llama": {**let, **STRONG, **SMALL},
    }


@dataclass(frozen=True)
class Protocol:
    """The runs, and what is measured of them.

    Attributes:
        config: what all runs are made of.
        k: the aligned block.
        keys: of every run: the first steps of the lab's whole runs, at their learning rates.
        arms: keys of each arm; the baseline first.
        moments: steps at which gradients are measured, of the baseline.
        held_out: windows of the validation text.
        train: windows of the student's text, to which readouts are fitted.
        batches: how many batches of ``batch`` windows of that text have their gradients measured.
        epochs: of a readout.
    """

    config: str = "recipes/lab/student.toml"
    k: int = 2
    keys: Mapping[str, str] = field(
        default_factory=lambda: {
            "training.steps": "120",
            "lr_scheduler.total_steps": "800",
            "checkpoint.interval": "30",
            "checkpoint.keep_latest_k": "0",
            "validation.freq": "120",
        }
    )
    arms: Mapping[str, Mapping[str, str]] = field(default_factory=until_120)
    moments: tuple[int, ...] = (30, 60, 120)
    held_out: int = 128
    train: int = 256
    batches: int = 8
    batch: int = 4
    epochs: int = 3
