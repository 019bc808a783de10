"""The report on the probe in Markdown."""

from collections.abc import Mapping
from typing import Any

from probe_check.verdict import HOLDS, OPEN, WRONG

MEANING = {
    HOLDS: "what it proposes ends within noise of the best arm, and arms do differ",
    WRONG: "what it proposes ends above the best arm by more than seeds do",
    OPEN: "best and worst arm lie no farther apart than equal arms do",
}
FIGURES = {
    "grad_cosine": "cosine of the two gradients",
    "grad_ratio": "ratio of their norms",
    "cosine_last": "cosine to the teacher, last",
    "loss_gain": "gain on the baseline at the probe's end",
}


def as_markdown(results: Mapping[str, Any]) -> str:
    """Returns report.md: what was asked, a verdict a rule, the figures behind it."""
    probe, noise = results["probe"], results["noise"]
    versions = ", ".join(f"{name} {probe['versions'][name]}" for name in ("python", "torch"))
    return "\n".join(
        [
            "# The probe's proposals against whole runs",
            "",
            f"`python recipes/check_probe.py` ({versions}; {probe['hardware']['cpu']}, one "
            f"thread); seed {results['seed']}, {probe['steps']} steps a run of the probe.",
            "",
            f"Asked beforehand: {results['hypothesis']}",
            "",
            f"Deciding: {results['metric']} Seeds move the difference of two runs by "
            f"{noise['sd']:.3f} nats per token (standard deviation, pooled, {noise['df']} degrees "
            "of freedom).",
            "",
            "| | proposed | stands for it | ended above the best arm by | told apart from "
            "| best to worst | equal arms: up to | the rule |",
            "|---|---|---|---|---|---|---|---|",
            *map(verdict_row, results["verdicts"]),
            "",
            *(f"- {name}: {said(results, name)}" for name in results["ends"]),
            "",
            "![The probe's figures beside how whole runs ended](probe.png)",
            "",
            "## By block",
            "",
            *by_block(results),
            "",
            "Spearman's rank correlation over blocks with the whole run's difference (below zero: "
            "the higher the figure, the lower the loss): "
            + ", ".join(
                f"{FIGURES[name]} {value:+.2f}"
                for name, value in results["rank_correlations"].items()
            )
            + ". Of five blocks only ±1.00 would be rarer than one in twenty.",
            "",
            "## By weight",
            "",
            *by_weight(results),
            "",
        ]
    )


def verdict_row(row: Mapping[str, Any]) -> str:
    proposed = "later" if row["proposed"] is None else f"{row['proposed']:g}"
    arms = ", ".join(f"{arm:g}" for arm in row["stands_for"])
    return (
        f"| {row['setting']} | {proposed} | {arms} | {row['regret']:.3f} ({row['best']:g}) "
        f"| {row['told_apart']:.3f} | {row['spread']:.3f} | {row['spread_of_equals']:.3f} "
        f"| {row['outcome']} |"
    )


def said(results: Mapping[str, Any], name: str) -> str:
    """Returns what a row means, and which arms it lacks."""
    ends = results["ends"][name]
    row = next((row for row in results["verdicts"] if row["setting"] == name), None)
    meaning = MEANING[row["outcome"]] if row else "no whole run is there yet"
    missing = f" To come: {', '.join(ends['missing'])}." if ends["missing"] else ""
    return f"{meaning} ({ends['seeds']} seed{'' if ends['seeds'] == 1 else 's'}).{missing}"


def by_weight(results: Mapping[str, Any]) -> list[str]:
    """Returns a row an arm of lambda_0: the ratio of norms that the probe saw, scaled to it."""
    probe, block = results["probe"], results["block"]
    seen = next(row for row in probe["evidence"] if row["block"] == block)["grad_ratio"]
    lines = [
        f"| lambda_0 | ratio of the gradients' norms (median, block {block}) "
        "| whole run - baseline |",
        "|---|---|---|",
    ]
    for weight, difference in sorted(results["ends"]["lambda_0"]["differences"].items()):
        ratio = seen * weight / probe["lambda_0"]
        lines.append(f"| {weight:g} | {ratio:.2g} | {difference:+.3f} |")
    return [*lines, "", f"The probe aimed at {probe['target_ratio']:g}."]


def by_block(results: Mapping[str, Any]) -> list[str]:
    names = " | ".join(FIGURES.values())
    lines = [f"| block | {names} | whole run - baseline |", "|---|---|---|---|---|---|"]
    ended = results["ends"]["k"]["differences"]
    for row in results["probe"]["evidence"]:
        difference = ended.get(row["block"])
        cells = (
            f"{row['grad_cosine']:+.4f} ± {row['grad_cosine_error']:.4f}",
            f"{row['grad_ratio']:.3g}",
            f"{row['cosine_last']:.3f}",
            f"{row['loss_gain']:+.3f}",
            "to come" if difference is None else f"{difference:+.3f}",
        )
        lines.append(f"| {row['block']} | {' | '.join(cells)} |")
    return lines
