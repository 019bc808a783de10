"""Public items that install by package name, as tasks; recipes/evaluate_pools.py runs them."""
