"""Doubles of the outside world, held honest by tests/contract."""
