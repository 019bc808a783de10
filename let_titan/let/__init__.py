"""LET in a run: loads the teacher, aligns the student with it, and releases it."""
