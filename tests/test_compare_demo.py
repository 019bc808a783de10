"""The demo's report, and what page and README say of it, are what its committed runs give."""

from pathlib import Path

import pytest

from let_titan.compare.markdown import report
from let_titan.compare.result import compare
from let_titan.compare.text import verdict
from let_titan.runs import Run

ROOT = Path(__file__).parents[1]
PHASE = ("with", "after")


@pytest.fixture
def demo(monkeypatch):
    """The comparison of the demo's runs, as the docs give its command."""
    monkeypatch.chdir(ROOT / "recipes" / "results" / "demo")
    sides = {name: [name, f"seed1/{name}", f"seed2/{name}"] for name in ("let", "baseline")}
    runs = {source: Run.load(source) for side in sides.values() for source in side}
    busy = {id(run) for source, run in runs.items() if "/" in source}
    let, baseline = ([runs[source] for source in sides[name]] for name in sides)
    return compare(let, baseline, untimed=busy)


def test_the_demos_report_and_its_docs_are_what_its_runs_give(demo):
    assert report(demo) == Path("report.md").read_text()
    (result,) = demo.results
    text = (ROOT / "docs" / "read-a-comparison.md").read_text()
    assert verdict(result) in text.replace("\n> ", " ")
    ranges = {}
    for name in ("steps", "flops"):
        found = [both for level in result.curve if (both := level.costs[name].speed_up)]
        ranges[name] = "{:.2f}x to {:.2f}x".format(*(f(b.value for b in found) for f in (min, max)))
        if name == "steps":
            assert all(both.low is None or not both.excludes(1) for both in found)
    said = f"level in steps ({ranges['steps']}, and the band holds 1 throughout) while its FLOPs"
    text = " ".join(text.split())
    assert said in text and f"a third as well spent ({ranges['flops']})" in text


def test_the_readmes_table_is_the_demos(demo):
    (result,) = demo.results
    row = {row.step: row for row in result.rows}
    whole, phases = demo.baseline_phases["whole run"], result.phases
    speeds, memories = (
        [whole[key].mean.value, *(phases[f"{when} the teacher"][key].mean.value for when in PHASE)]
        for key in ("tokens_per_s", "peak_memory_gib")
    )
    machine = phases["after the teacher"]["tokens_per_s"].to_baseline.value - 1
    noise = f"the {100 * abs(machine):.0f} % between the two is the machine's noise)"
    by = row[216].difference
    for line in (
        f"(s_stop) | {row[108].baseline.value:.3f} | {row[108].run.value:.3f} |",
        f"at the end | **{row[216].baseline.value:.3f}** | {row[216].run.value:.3f} |",
        f"tokens/s with the teacher | | {speeds[1]:.0f} |",
        f"{noise} | {speeds[0]:.0f} | {speeds[2]:.0f} |",
        f"memory (RSS, GiB) with the teacher | | {memories[1]:.2f} |",
        f"memory without it | {memories[0]:.2f} | {memories[2]:.2f} |",
        f"is {by.value:+.3f} nats per token, 95 % interval {by.low:+.3f} to {by.high:+.3f} ",
    ):
        assert line in " ".join((ROOT / "README.md").read_text().split()), line
