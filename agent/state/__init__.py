"""What a host remembers between runs: the last desired state and report, snapshots, and packages not yet installed."""
