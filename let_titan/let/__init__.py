"""LET in a run: the teacher beside the student, what it is aligned with, until when."""
