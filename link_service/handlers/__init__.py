"""Boundary in: one function per RPC, and the flows they share."""
