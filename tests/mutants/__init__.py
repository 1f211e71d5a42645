"""What the suites are worth: each safeguard is broken once, in a copy, and a named test must turn red.

`make mutants`; `python -m tests.mutants --list`. The mutants stand in `catalogue`, one file for each part.
"""
