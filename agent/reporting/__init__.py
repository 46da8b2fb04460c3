"""Where a report goes: a module for each kind of receiver, and what they share."""
