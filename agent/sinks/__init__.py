"""Where a report goes: a module for each kind of sink, the delivery, and the spool of undelivered reports."""
