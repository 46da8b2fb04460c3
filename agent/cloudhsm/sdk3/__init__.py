"""SDK 3, until its end of support: its paths, files, steps, daemon and undo, which are deleted as one folder.

With it go `ClientPaths.sdk3`, the rows with SDK 3 in `cloudhsm/components.py` and the catalogue, the option `--sdk`,
and what the four modules do that may import it (pyproject.toml names them).
"""
