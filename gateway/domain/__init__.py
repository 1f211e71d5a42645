"""What the gateway decides: how a code is answered, who visited, and how an error is told. Pure."""
