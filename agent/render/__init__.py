"""How a report looks: versioned JSON for programs, text for people, progress while a run lasts."""
