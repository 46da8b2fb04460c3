"""The speed tables: what the agent costs beside plain shell that does the same."""
