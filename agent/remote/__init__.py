"""The far side of a roll-out, on the host: the bootstrap program, and the server that it starts."""
