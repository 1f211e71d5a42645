"""What analytics decides: the fold of a click into a row, what is a repeat, what to flush when, rows into stats.

Nothing here reads a clock or waits. The state machine is `book`; A1 to A5 and S4 are kept there and in what it uses.
"""
