"""Baselines: maps as they were, beside the tests that ask for them.

`baseline` is the value, `names` and `format` and `store` how it lies on the disk, `glance` what tells its input from
another, `compare` what became of it, `shelf` the baselines of one test, `orphans` those that no test uses, `summary`
what is said at the end of a run. `received` holds what waits to be approved, `commands` what a person types.
"""
