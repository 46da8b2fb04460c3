"""The vocabulary of the whole agent: values, errors, and the interfaces to a machine; standard library only."""
