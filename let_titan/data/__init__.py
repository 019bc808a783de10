"""The Pile's line format: one JSON object a line, {"text": ..., "meta": {"pile_set_name": ...}}."""
