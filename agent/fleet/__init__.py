"""The same job on many hosts over SSH: inventory, waves, journal, roll-out."""
