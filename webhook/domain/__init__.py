"""What webhook decides: who is told, with which bytes and signature, and what follows from an answer. Pure."""
