"""This machine when it runs Windows: the same promises, kept by means of its kernel."""
