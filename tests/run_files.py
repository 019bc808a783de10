"""A run's files as the tests write and read them."""

import json


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def line_of(step, **more):
    return {"step": step, "loss": 1.0, "elapsed_s": 2.0 * step, **more}
