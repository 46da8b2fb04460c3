"""The quick layers on the oldest and the newest Python that is promised, with the libraries these get."""

from __future__ import annotations

import tarfile
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from . import agent_install, images
from .agent_install import CHECKOUT

if TYPE_CHECKING:
    from .conftest import MakeHost

TESTING = ["pytest>=8", "hypothesis>=6", "jsonschema>=4", "paramiko>=5", "pyyaml>=6"]
FOLDERS = ("agent", "templates", "tests/unit", "tests/properties", "tests/golden", "tests/fakes")
FILES = (
    "pyproject.toml",
    "README.md",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/examples.py",
    "tests/full_server.py",
    "tests/iri_syntax.py",
    "tests/order.py",
    "tests/skips.py",
    "tests/task_schema.py",
)


@pytest.mark.parametrize(("image", "version"), [("bullseye", "3.9"), ("ubuntu24.04", "3.13")])
def test_the_quick_layers_pass(make_host: MakeHost, image: str, version: str) -> None:
    kind = images.image(image)
    testing = agent_install.library_layer(kind, "testing", [*agent_install.requirements(), *TESTING])
    host = make_host(image, layers=(testing,))
    assert (
        host.must(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip() == version
    )
    host.must(["mkdir", "/checkout"])
    host.must(["tar", "-x", "-C", "/checkout"], stdin=checkout())
    # an interpreter that dies says why on the real standard error, which pytest would take with it
    # the interpreter is what is asked, and a handful of examples asks it as well as hundreds
    done = host.run(
        ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--capture=sys",
         "-m", "not slow", "--hypothesis-profile", "few", "/checkout/tests"],
        timeout=1800,
        env={"PYTHONPATH": f"/{agent_install.PLACE}:/checkout", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "NOT ALLOWED TO BE SKIPPED" not in done.stdout


def checkout() -> bytes:
    """Return a tar of what the quick layers need."""
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in FILES:
            tar.add(CHECKOUT / name, name)
        for folder in FOLDERS:
            for path in sorted((CHECKOUT / folder).rglob("*")):
                name = path.relative_to(CHECKOUT).as_posix()
                if (path.is_file() or path.is_symlink()) and "__pycache__" not in path.parts:
                    tar.add(path, name)
    return data.getvalue()
