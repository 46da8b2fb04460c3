"""hsm-agent.exe, compiled reproducibly by mingw-w64."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

_SOURCES = Path(__file__).with_name("launcher")
_TOOLS = "x86_64-w64-mingw32"
TOOLS = (f"{_TOOLS}-gcc", f"{_TOOLS}-windres")


def launcher(version: str, interpreter: str) -> bytes:
    """Return the program; `interpreter` is the name of the DLL that it loads, such as `python313`."""
    numbers = ",".join([*version.split("."), "0"])
    with tempfile.TemporaryDirectory() as folder:
        resources, made = Path(folder, "resources.o"), Path(folder, "hsm-agent.exe")
        windres = [TOOLS[1], f"-DNUMBERS={numbers}", f'-DTEXT=\\"{version}\\"']
        subprocess.run([*windres, "launcher.rc", str(resources)], check=True, cwd=_SOURCES)
        gcc = [TOOLS[0], "-municode", "-O2", "-Wall", "-Wextra", "-Werror", f"-DINTERPRETER={interpreter}"]
        gcc += ["-s", "-Wl,--no-insert-timestamp", "-Wl,--dynamicbase,--nxcompat,--high-entropy-va"]
        subprocess.run([*gcc, "launcher.c", str(resources), "-o", str(made)], check=True, cwd=_SOURCES)
        return made.read_bytes()
