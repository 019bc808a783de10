"""Why LET gains nothing in the lab: what block k learns from the teacher, and what it is worth."""
