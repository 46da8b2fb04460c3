"""Is a text an IRI? What jsonschema asks of the package `rfc3987_syntax`, whose grammars are made here when they are used.

That package makes nearly forty grammars on import, 3 s of processor time in each process that imports jsonschema, and no
schema of ours has an IRI in it. That of CycloneDX has.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

_PACKAGE = "rfc3987_syntax"


def stand_before_the_package() -> None:
    """Let `import rfc3987_syntax` give this module, where that package is installed."""
    if _PACKAGE not in sys.modules and find_spec(_PACKAGE) is not None:
        sys.modules[_PACKAGE] = sys.modules[__name__]


def is_valid_syntax(term: str, value: str) -> bool:
    """Return what the package says of a text."""
    if sys.modules.get(_PACKAGE) is sys.modules[__name__]:
        del sys.modules[_PACKAGE]
    return bool(import_module(_PACKAGE).is_valid_syntax(term, value))
