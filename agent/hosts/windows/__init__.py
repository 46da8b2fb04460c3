"""This machine when it is Windows: the same promises, kept with what its kernel has."""
