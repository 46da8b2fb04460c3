"""SDK 3, until its end of support: its daemon and the service managers that run it."""
