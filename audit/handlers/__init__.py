"""Boundary in: records of `links-events` become leaves; RPCs become looks at the logs."""
