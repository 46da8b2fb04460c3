"""A shell in which the scripts of first boot and Run Command run, what they fetch from, and texts that are hostile."""

from __future__ import annotations

import gzip
import http.server
import io
import os
import subprocess
import tarfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from agent.config.desired import Desired, resolve
from agent.config.input_errors import InputErrors
from agent.config.readers import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGENT = """#!/bin/sh
case $1 in
--version) echo hsm-agent 0.1.0 ;;
status) exit "$(cat status)" ;;
configure) printf '%s\\n' "$@" >argv; [ "$2" != --config ] || { cat "$3" >config; stat -c %a "$3" >mode; }; exit "$(cat exit 2>/dev/null || echo 0)" ;;
esac
"""


class Shell:
    """A place in which user-data runs: `bin` comes first on its path, and what it did lies in the folder itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hidden: list[str] = []
        (folder / "bin").mkdir()
        self.program("hsm-agent", AGENT)
        self.program("sleep", "#!/bin/sh\n")
        self.program("dpkg", "#!/bin/sh\n")
        self.program(
            "apt-get",
            '#!/bin/sh\necho "$@" >>apt\ncase " $* " in *\' install \'*) cp agent bin/hsm-agent ;; esac\n',
        )
        self.program("apt-cache", "#!/bin/sh\n")
        (folder / "agent").write_text(AGENT)
        (folder / "agent").chmod(0o755)

    def program(self, name: str, text: str | None) -> None:
        path = self.folder / "bin" / name
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
            path.chmod(0o755)

    def hide(self, name: str) -> None:
        """Have the shell not find a program that this machine may have: in `bin`, and nowhere else, programs are."""
        self.hidden.append(name)

    def exchanged(self, script: str) -> str:
        for place in (
            "/var/lib/hsm-agent",
            "/var/cache/hsm-agent",
            "/etc/systemd",
            "/run/systemd",
            "/opt/hsm-agent",
            "/usr/libexec/platform-python",
        ):
            script = script.replace(place, f"{self.folder}{place}")
        script = script.replace("/usr/local/bin/hsm-agent", f"{self.folder}/bin/hsm-agent")
        for name in self.hidden:
            script = script.replace(f"command -v {name} ", "command -v nosuch-program ")
        return script.replace("PATH=", f"PATH={self.folder}/bin:", 1).replace(">/dev/console", ">>console")

    def run(self, script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = self.folder / "part-001"
        path.write_text(self.exchanged(script))
        return subprocess.run(
            ["sh", str(path), *words], cwd=self.folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")

    def given(self) -> Desired:
        """Return what `configure` was given, as it reads it."""
        input_errors = InputErrors()
        words = self.read("argv").splitlines()
        desired = resolve(
            [read_text((self.folder / "config").read_bytes(), "first-boot.json", input_errors)], input_errors
        )
        return replace(desired, timeout=float(words[4].rstrip("s")), replace_ca="--replace-ca" in words)


def archive() -> bytes:
    """Return a tree as packaging makes it, with the stub in the place of the agent."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("hsm-agent-0.1.0-0123/hsm-agent")
        info.mode, info.size = 0o755, len(AGENT)
        tar.addfile(info, io.BytesIO(AGENT.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)


@contextmanager
def bucket(folder: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """Serve a folder on the loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words, directory=str(folder))

        def log_message(self, *_words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((address, 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://{address}:{server.server_port}"
        server.shutdown()
        thread.join()


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1).filter(
    str.strip
) | st.sampled_from(
    [
        "'",
        '"',
        "\n",
        "\nEND\n",
        "$(touch pwned)",
        "`touch pwned`",
        "</powershell>",
        "${PATH}",
        "\\",
        "%s",
        "{{ wanted }}",
        "'; touch pwned; '",
    ]
).map("/x{}".format)
