"""How a cluster looks: JSON for programs, text for people, a page with its picture."""
