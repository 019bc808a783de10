"""Time-series classification under an alignment; recipes/time_series.py runs it."""
