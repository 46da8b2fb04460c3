"""What people see of a roll-out: the live display, plain lines, the final screen, and the page to keep."""
