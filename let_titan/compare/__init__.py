"""The honest speed-up: runs against their baseline, with the teacher's cost and intervals.

python -m let_titan.compare RUN... --baseline RUN... --out FOLDER
"""
