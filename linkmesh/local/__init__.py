"""The whole system on one machine: real engines, the six services as real child processes, and one supervisor.

`LocalSystem` (supervisor.py) is the library behind `linkmesh up` and behind the tests that need everything at once.
"""
