"""The same job on many hosts over SSH or Systems Manager: inventory, waves, journal, roll-out."""
