"""What a person runs: the command line, the small client behind it, and the whole system on one machine.

Owns nothing the services need: it may import all of them, none of them may import it.
"""
