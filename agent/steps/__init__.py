"""The few kinds of step a plan is made of: five that can be brought about, and the probes."""
