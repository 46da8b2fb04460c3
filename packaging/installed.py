"""What the .deb and the .rpm install: the tree, its launcher, units, manual pages, completions and configuration."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from files import File, Files, compress, lay_out

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

PLACE = "usr/lib/hsm-agent"
CONFIGURATION = "etc/hsm-agent/config.toml"
UNITS = (
    "hsm-agent-verify.service",
    "hsm-agent-verify.timer",
    "hsm-agent-apply.service",
    "hsm-agent-apply.timer",
)
EXAMPLE = "usr/share/doc/hsm-agent/examples/config.toml"
_CONFIG = Path(__file__).with_name("config.toml")
_PAGES = Path(__file__).with_name("pages.py")


def pages(tree: Mapping[str, File], date: datetime) -> dict[str, bytes]:
    """Return what the agent in the tree generates: manual pages, `bash`, `zsh`, `fish` and `config`."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(tree, Path(folder), int(date.timestamp()))
        argv = [sys.executable, "-I", str(_PAGES), folder, date.strftime("%Y-%m-%d")]
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE)
    return {name: text.encode() for name, text in json.loads(done.stdout).items()}


def installed(root: Path, tree: Mapping[str, File], pages: Mapping[str, bytes], units: str) -> Files:
    """Return the files by their place on the host; `units` is the folder of systemd's units there."""
    files = {f"{PLACE}/{path}": file for path, file in tree.items()}
    files["usr/bin/hsm-agent"] = File(mode=0o777, link="../lib/hsm-agent/hsm-agent")
    for name in UNITS:
        files[f"{units}/{name}"] = File((root / "templates" / "units" / name).read_bytes())
    for name in pages:
        section = name.rpartition(".")[2]
        if section.isdigit():
            files[f"usr/share/man/man{section}/{name}.gz"] = File(compress(pages[name]))
    files["usr/share/bash-completion/completions/hsm-agent"] = File(pages["bash"])
    files["usr/share/zsh/site-functions/_hsm-agent"] = File(pages["zsh"])
    files["usr/share/fish/vendor_completions.d/hsm-agent.fish"] = File(pages["fish"])
    # short: a configuration file that changes with each version makes each upgrade ask about an edited one
    files[CONFIGURATION] = File(_CONFIG.read_bytes())
    files[EXAMPLE] = File(pages["config"])
    files["etc/hsm-agent/conf.d"] = File(mode=0o755, folder=True)
    return files
