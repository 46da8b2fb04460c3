"""The host's side of a roll-out: the protocol, the bootstrap program, and the server that it starts."""
