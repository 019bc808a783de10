"""Deep linear networks and a small Transformer under an alignment; recipes/why_early*.py run it."""
