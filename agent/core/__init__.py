"""What every part of the agent speaks of: values, errors, and the interfaces to a machine; standard library only."""
