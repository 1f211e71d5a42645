"""The world as the ports want it: Redis, gRPC peers, and HTTP as it comes off the wire."""
