"""Deep linear networks under an alignment; recipes/why_early.py runs it."""
