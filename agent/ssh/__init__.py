"""SSH as users of OpenSSH have it: their configuration, known hosts and keys, and one connection at the end."""
