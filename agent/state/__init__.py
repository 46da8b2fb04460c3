"""What a host remembers between runs: the last desired state, the last report, snapshots, and the lock."""
