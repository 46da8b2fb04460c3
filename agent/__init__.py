"""hsm-agent: bring a host to a proven working state with an AWS CloudHSM cluster."""

# A literal, since importlib.metadata costs 40 ms at every start.
__version__ = "0.1.0"
