"""Where reports arrive in the lab."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .scene import STATE

if TYPE_CHECKING:
    from .host import LabHost
    from .lab import Lab


PORT = 8443
TOKEN = "s3cr3t-t0ken"
TEXTFILES = "/var/lib/node-exporter"


class Desk:
    """The receiver at the operator's seat; what it took and was asked lies in `folder`."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.url = f"https://{lab.operator.ip}:{PORT}/reports?team=hsm"
        self.ca, cert, key = certificates(folder, lab.operator.ip)
        self.down(yes=True)
        argv = [
            "python3",
            "-m",
            "tests.fakes.receiver",
            lab.operator.ip,
            str(PORT),
            str(cert),
            str(key),
            str(folder),
        ]
        root = {"PYTHONPATH": str(Path(__file__).parents[2])}
        self.server = lab.operator.start(argv, [PORT], root, log=folder / "log")

    def down(self, *, yes: bool) -> None:
        if yes:
            (self.folder / "down").touch()
        else:
            (self.folder / "down").unlink()

    def taken(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_bytes()) for path in sorted(self.folder.glob("0*.json"))]

    def headers(self) -> list[dict[str, str]]:
        lines = (self.folder / "requests").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["headers"] for line in lines]


def certificates(folder: Path, ip: str) -> tuple[Path, Path, Path]:
    """Make a private CA and what it issued for the receiver; return the CA, the certificate and its key."""
    of_desk = f"subjectAltName=IP:{ip}\nbasicConstraints=critical,CA:FALSE\nauthorityKeyIdentifier=keyid\n"
    (folder / "ext").write_text(of_desk, encoding="ascii")
    for line in (
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=desk-CA -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=desk -keyout desk.key -out desk.csr",
        "x509 -req -in desk.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out desk.crt",
    ):
        subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True, timeout=60)
    return folder / "ca.crt", folder / "desk.crt", folder / "desk.key"


def spool(host: LabHost) -> list[str]:
    names = host.must(["find", f"{STATE}/spool", "-name", "*.json", "-perm", "600", "-user", "root"])
    return sorted(names.splitlines())
