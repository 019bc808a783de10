"""The report on why nothing is gained, in Markdown."""

import statistics
from collections.abc import Mapping
from typing import Any

from no_gain.protocol import HYPOTHESES

Results = Mapping[str, Any]

PARTS = ("own", "same_id", "any")
HALF, NATS, RIGHT_ANGLE, TENTH, TWICE = 0.5, 0.05, 0.05, 0.1, 2
"""What the hypotheses name."""


def as_markdown(results: Results) -> str:
    """Returns report.md: what was expected, what came out, the tables behind it."""
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in ("python", "torch"))
    tokens, k = results["tokens"], results["k"]
    rows = [
        f"| {expected} | {'yes' if yes else 'no'}: {found} |"
        for expected, (yes, found) in zip(HYPOTHESES.values(), outcomes(results), strict=True)
    ]
    return "\n".join(
        [
            "# Why LET gains nothing in the lab",
            "",
            f"`python recipes/why_no_gain.py` ({versions}; {results['hardware']['cpu']}, one "
            f"thread). The first 120 steps of the lab's runs, seed {results['seed']}, block {k} "
            f"aligned; measured on {tokens['held_out']:,} held-out tokens.",
            "",
            "| expected beforehand | came out |",
            "|---|---|",
            *rows,
            "",
            "## What block k's cosine consists of",
            "",
            "Mean cosine of the student's state to the teacher's state of the same token; to its "
            "state at another occurrence of the token's id; and of any other token. A student that "
            "knew the common direction alone would have three equal figures; one that knew the "
            "token it reads and no context, the first two.",
            "",
            *closeness_table(results),
            "",
            f"Between the teacher's states of two tokens the mean cosine is "
            f"{results['teacher']['any']['raw']:.3f} raw and "
            f"{results['teacher']['any']['centred']:.3f} centred.",
            "",
            "![By step](looks.png)",
            "",
            "## What can be read off block k",
            "",
            "Softmax regression on the block's output, fitted to "
            f"{tokens['train']:,} tokens; NLL on the held-out ones, nats per token. The model's "
            "own NLL at that step beside it.",
            "",
            *readout_table(results),
            "",
            "## What a gradient is worth",
            "",
            "Cosine of a batch's gradient to the held-out NLL's, of the baseline, in the weights "
            "that the alignment reaches (the embedding and the blocks up to k); mean and standard "
            f"deviation over {results['batches']} batches of 1,024 tokens. To first order, a step "
            "of a given length along it lowers the NLL by so much of what is possible. AdamW's "
            "steps are other ones.",
            "",
            *gradient_table(results),
            "",
            "![Three reasons](reasons.png)",
            "",
        ]
    )


def outcomes(results: Results) -> list[tuple[bool, str]]:
    """Returns whether each hypothesis holds, and by which figures, in the protocol's order."""
    return [
        of_common(results),
        of_readout(results),
        of_angle(results),
        of_steps(results),
        of_embedding(results),
    ]


def by_arm(found: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out the arms with other initial weights, which have a baseline of their own."""
    return {arm: value for arm, value in found.items() if not arm.endswith("llama")}


def of_common(results: Results) -> tuple[bool, str]:
    found = results["students"]["LET 1"]["closeness"]["raw"]
    share = found["any"] / found["own"]
    return share > HALF, f"{found['any']:.3f} of {found['own']:.3f} is had with any token's"


def of_readout(results: Results) -> tuple[bool, str]:
    read = {arm: student["readout"] for arm, student in by_arm(results["students"]).items()}
    read["the teacher"] = results["teacher"]["readout"]
    gains = {arm: read["baseline"] - value for arm, value in read.items()}
    no_better = all(gain < NATS for arm, gain in gains.items() if arm.startswith("LET"))
    better = gains["SALT"] > NATS and gains["the teacher"] > NATS
    said = ", ".join(
        f"{arm} {gain:+.3f}"
        for arm, gain in gains.items()
        if arm not in ("baseline", "the token alone")
    )
    return no_better and better, f"nats gained on the baseline: {said}"


def of_angle(results: Results) -> tuple[bool, str]:
    means = {
        arm: statistics.fmean(look["grad_cosine"] for look in looks)
        for arm, looks in by_arm(results["looks"]).items()
    }
    said = ", ".join(f"{arm} {value:+.4f}" for arm, value in means.items())
    return all(abs(value) < RIGHT_ANGLE for value in means.values()), said


def of_steps(results: Results) -> tuple[bool, str]:
    holds, said = True, []
    for step, found in results["gradients"].items():
        nll, kl = found["NLL"]["mean"], found["KL"]["mean"]
        own = [value["mean"] for name, value in found.items() if name.startswith("alignment")]
        holds = holds and kl > nll and all(value < TENTH * nll for value in own)
        shown = " and ".join(f"{value:+.3f}" for value in own)
        said.append(f"step {step}: NLL {nll:.3f}, KL {kl:.3f}, alignment raw and centred {shown}")
    return holds, "; ".join(said)


def of_embedding(results: Results) -> tuple[bool, str]:
    small, large = (results["students"][arm] for arm in ("LET 1, llama", "LET 1"))
    found = [student["closeness"]["raw"]["own"] for student in (small, large)]
    beside = small["nll"] - results["students"]["baseline, llama"]["nll"]
    said = f"{found[0]:.3f} beside {found[1]:.3f}; LET's NLL there {beside:+.3f} to its baseline's"
    return found[0] > TWICE * found[1], said


def closeness_table(results: Results) -> list[str]:
    lines = [
        "| | raw: own token's | same id's | any token's | centred: own | same id's | any |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = {f"{arm}": s["closeness"] for arm, s in results["students"].items() if s["block"]}
    rows["the most that can be had"] = results["teacher"]["ceilings"]
    for arm, found in rows.items():
        values = [found[name][of] for name in ("raw", "centred") for of in PARTS]
        lines.append(f"| {arm} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return lines


def readout_table(results: Results) -> list[str]:
    lines = ["| | readout's NLL | the model's own |", "|---|---|---|"]
    for arm, found in results["students"].items():
        own = "" if arm == "the token alone" else f"{found['nll']:.3f}"
        lines.append(f"| {arm} | {found['readout']:.3f} | {own} |")
    teacher = results["teacher"]
    lines.append(f"| the teacher's last states | {teacher['readout']:.3f} | {teacher['nll']:.3f} |")
    return lines


def gradient_table(results: Results) -> list[str]:
    steps = list(results["gradients"])
    lines = [
        f"| gradient of | {' | '.join(f'step {step}' for step in steps)} |",
        "|---|" + "---|" * len(steps),
    ]
    for name in results["gradients"][steps[0]]:
        found = [results["gradients"][step][name] for step in steps]
        cells = " | ".join(f"{value['mean']:+.3f} ± {value['sd']:.3f}" for value in found)
        lines.append(f"| {name} | {cells} |")
    return lines
