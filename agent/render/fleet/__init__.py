"""How a roll-out looks to people: the live display, log lines, the final screen, and the page."""
