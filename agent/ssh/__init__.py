"""SSH as users of OpenSSH have it: their configuration, their known hosts, their keys, and one link at the end."""
