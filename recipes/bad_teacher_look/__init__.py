"""The parts of recipes/notice_bad_teacher.py."""
