"""What runs by itself: the relay of the outbox, the leasing of ids."""
