"""What runs by itself: attempts, and the search for deliveries that nobody would make."""
