"""The command line: each command is parsed here, calls one function, and prints its report."""
