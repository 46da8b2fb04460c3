"""The few kinds of step a plan is made of: six that can be brought about, and the probes."""
