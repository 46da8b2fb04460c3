"""AWS's API as a host asks it: credentials, endpoints, one signer, four encodings, a table of operations."""
