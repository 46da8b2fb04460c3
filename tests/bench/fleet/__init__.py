"""What a roll-out over a fleet costs, beside the peers that do the same."""
