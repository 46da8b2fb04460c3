"""What a host remembers between runs: the last desired state and report, snapshots, and undelivered reports."""
