"""A roll-out's hosts over AWS Systems Manager: its Run Command as values, and the sessions that share commands."""
