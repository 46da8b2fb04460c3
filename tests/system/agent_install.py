"""Puts the agent of this checkout into a host: two layers over its image, so that installing it costs no time."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

from .images import CACHE, HERE, Image, finished, only_one_builder, run_over
from .kernel import LabError, tool

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = HERE.parents[1]
PLACE = "usr/lib/hsm-agent"
LAUNCHER = f"""#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/{PLACE}")
from agent.__main__ import main

raise SystemExit(main())
"""
KEPT = 8

# `pip --python-version` chooses wheels for another Python, yet judges `; python_version < "3.10"` by its own: for 3.9 it
# then settles on a typer that cannot be imported there. So it is told what to judge by.
PIP = """
import sys
from pip._vendor.packaging import markers

own = markers.default_environment()
python = sys.argv.pop(1)
markers.default_environment = lambda: {**own, "python_version": python, "python_full_version": python + ".0"}

from pip._internal.cli.main import main

raise SystemExit(main())
"""


def requirements() -> list[str]:
    """What pyproject.toml asks for."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return [str(line) for line in project["dependencies"]]


def sources() -> list[Path]:
    """The files of `agent/` that would be shipped; those of the link in it, some Pythons do not follow by themselves."""
    found = {*(CHECKOUT / "agent").rglob("*"), *(CHECKOUT / "agent" / "templates").rglob("*")}
    return sorted(file for file in found if file.is_file() and "__pycache__" not in file.parts)


def layers(image: Image) -> tuple[Path, ...]:
    """The agent's own files, and the libraries it needs, both compiled by the Python of that image."""
    return _checkout_layer(image), library_layer(image, "libraries", requirements())


def _compile(image: Image, draft: Path, what: str) -> None:
    run_over(image.lowers, draft, f"python3 -m compileall -q -x /templates/ /{what}")


def library_layer(image: Image, name: str, wanted: list[str]) -> Path:
    """Return a layer with packages of the index for the Python of that image, made once and kept."""
    recipe = "\0".join([image.python, image.layer.stack[-1].key, Path(__file__).read_text(), *wanted])
    folder = CACHE / "agent" / f"{name}-{image.python}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if finished(folder):
        return folder
    with only_one_builder():
        if not finished(folder):
            draft = _fresh(folder)
            _pip_install(draft / PLACE, image.python, wanted)
            _compile(image, draft, PLACE)
            draft.rename(folder)
    return folder


def _pip_install(target: Path, python: str, wanted: list[str]) -> None:
    # One index alone: an additional local one may not say which Python its files are for, and pip then takes them.
    hidden = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
    env = {name: value for name, value in os.environ.items() if name not in hidden} | {
        "PIP_CONFIG_FILE": os.devnull,
    }
    pip = [sys.executable, "-c", PIP, python, "install", "--quiet", "--no-compile", "--target", str(target)]
    pip += ["--python-version", python, "--implementation", "cp", "--platform", "manylinux2014_x86_64"]
    tool([*pip, "--only-binary=:all:", *wanted], env=env)
    for distribution in metadata.distributions(path=[str(target)]):
        needs = distribution.metadata["Requires-Python"]
        if needs and f"{python}.0" not in SpecifierSet(needs):
            message = (
                f"pip chose {distribution.metadata['Name']} {distribution.version}, not for Python {python}"
            )
            raise LabError(message)


def _checkout_layer(image: Image) -> Path:
    files = sources()
    digest = hashlib.sha256(image.layer.stack[-1].key.encode() + Path(__file__).read_bytes())
    content = {file.relative_to(CHECKOUT): file.read_bytes() for file in files}
    for name, text in content.items():
        digest.update(f"{name}\0{len(text)}\0".encode() + text)
    folder = CACHE / "agent" / f"checkout-{image.python}-{digest.hexdigest()[:12]}"
    if finished(folder):
        os.utime(folder)
        return folder
    with only_one_builder():
        if not finished(folder):
            draft = _fresh(folder)
            for name, text in content.items():
                target = draft / PLACE / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(text)
            launcher = draft / "usr/bin/hsm-agent"
            launcher.parent.mkdir(parents=True)
            launcher.write_text(LAUNCHER)
            launcher.chmod(0o755)
            _compile(image, draft, f"{PLACE}/agent")
            draft.rename(folder)
            _forget_old(image.python)
    return folder


def _fresh(folder: Path) -> Path:
    draft = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def _forget_old(python: str) -> None:
    """Every state of the checkout leaves a layer; those of long ago go, a run of today may still stand on its own."""
    found = sorted((CACHE / "agent").glob(f"checkout-{python}-*"), key=lambda folder: folder.stat().st_mtime)
    day_ago = found[-1].stat().st_mtime - 86400
    for folder in found[:-KEPT]:
        if folder.stat().st_mtime < day_ago:
            shutil.rmtree(folder)
