"""User-data for a lab host."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import TYPE_CHECKING

from .agent_install import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

    from .scene import Scene


def user_data(
    scene: Scene, image: str, form: str, package: Path, told: list[str], cluster_id: str | None = None
) -> bytes:
    """Print it as an operator does; the package lies in the bucket, which is the mirror.

    The HSMs are named by their addresses, or by the cluster that they are of.
    """
    (scene.folder / "mirror" / package.name).write_bytes(package.read_bytes())
    options = ["--cluster-id", cluster_id, *scene.sources(image)] if cluster_id else scene.options(image)
    options[options.index("--ca-cert") + 1] = str(scene.made.ca.cert)
    argv = [sys.executable, "-m", "agent", "user-data", "--format", form, *options, *told]
    argv += ["--agent", f"{scene.url}/{package.name}"]
    argv += ["--agent-sha256", hashlib.sha256(package.read_bytes()).hexdigest()]
    return subprocess.run(argv, check=True, capture_output=True, timeout=60, cwd=CHECKOUT).stdout
