"""The kinds of step and of probe that a plan is made of, and what undoes them."""
