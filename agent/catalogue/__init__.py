"""What the vendor publishes, as data; and the one question: which row fits this host?"""

from agent.catalogue.artefacts import (
    LATEST,
    Artefact,
    Published,
    components,
    newest,
    published,
    resolve_artefact,
)
from agent.catalogue.lifecycle import life_cycle
from agent.catalogue.loader import Catalogue, PlatformRow, Release, load, parse
from agent.catalogue.match import PlatformMatch, fit_host, match_platform
from agent.catalogue.os_release import parse_os_release
from agent.catalogue.versions import parse_version

__all__ = [
    "LATEST",
    "Artefact",
    "Catalogue",
    "PlatformMatch",
    "PlatformRow",
    "Published",
    "Release",
    "components",
    "fit_host",
    "life_cycle",
    "load",
    "match_platform",
    "newest",
    "parse",
    "parse_os_release",
    "parse_version",
    "published",
    "resolve_artefact",
]
