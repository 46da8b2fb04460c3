"""What the vendor publishes, as data; and the one question: which row fits this host?"""

from agent.catalogue.age import life_cycle
from agent.catalogue.artefacts import LATEST, Artefact, Published, artefact, components, newest, published
from agent.catalogue.fit import Fit, fit_row
from agent.catalogue.os_release import parse_os_release
from agent.catalogue.rows import Catalogue, Release, Row, load, parse
from agent.catalogue.versions import parse_version

__all__ = [
    "LATEST",
    "Artefact",
    "Catalogue",
    "Fit",
    "Published",
    "Release",
    "Row",
    "artefact",
    "components",
    "fit_row",
    "life_cycle",
    "load",
    "newest",
    "parse",
    "parse_os_release",
    "parse_version",
    "published",
]
