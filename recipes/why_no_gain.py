"""Why does LET gain nothing in the lab, where SALT gains by the same steps of the same teacher?

    python recipes/why_no_gain.py [--report]

Trains the first 120 steps of the lab's runs (seven arms, seed 0, in outputs/lab/no_gain) and asks
three things of their students: what block k's cosine to the teacher consists of, how much of the
next token can be read off block k, and what the alignment's gradient is worth to the NLL. What was
expected stands in no_gain/protocol.py. About 15 minutes of one core; ``--report`` writes the report
of what was measured anew. Writes recipes/results/why_no_gain/.
"""

import argparse
import json

from no_gain.figures import draw_looks, draw_reasons
from no_gain.measure import Place, measured
from no_gain.text import as_markdown


def main(args: list[str] | None = None, place: Place | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--report", action="store_true", help="of what is measured; train nothing")
    options = parser.parse_args(args)
    place = place or Place()
    kept = place.results / "results.json"
    if options.report and not kept.exists():
        parser.error(f"{kept} is not there yet: run without --report first.")
    if not options.report:
        found = measured(place)
        place.results.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found, indent=1) + "\n")
    results = json.loads(kept.read_text())
    draw_looks(results, place.results / "looks.png")
    draw_reasons(results, place.results / "reasons.png")
    (place.results / "report.md").write_text(as_markdown(results))


if __name__ == "__main__":
    main()
