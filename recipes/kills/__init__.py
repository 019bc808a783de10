"""What recipes/kill_trials.py is made of."""
