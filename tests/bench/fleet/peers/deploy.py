"""What a careful user of pyinfra writes for the same end state and the same looks."""

import json
import os
from pathlib import Path

from pyinfra import host
from pyinfra.facts.deb import DebPackage
from pyinfra.facts.files import FileContents
from pyinfra.operations import files, server

WANTED = json.loads(os.environ["BENCH_WANTED"])
ADDRESSES = " ".join(WANTED["addresses"])
CA = "/opt/cloudhsm/etc/customerCA.crt"
SETTINGS = "/opt/cloudhsm/etc/cloudhsm-cli.cfg"

installed = host.get_fact(DebPackage, package="cloudhsm-cli", _sudo=True)
if not installed or installed["version"] != WANTED["version"]:
    file = f"/var/tmp/{Path(WANTED['package']).name}"
    files.put(name="send the package", src=WANTED["package"], dest=file, _sudo=True)
    server.shell(
        name="install it",
        commands=[f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q {file}"],
        _sudo=True,
    )

files.put(name="place the CA", src=WANTED["ca"], dest=CA, mode="644", user="root", group="root", _sudo=True)


def held() -> list[str]:
    text = host.get_fact(FileContents, path=SETTINGS, _sudo=True)
    if not text:
        return []
    return [each["hostname"] for each in json.loads("\n".join(text))["clusters"][0]["cluster"]["servers"]]


if held() != WANTED["addresses"]:
    server.shell(
        name="configure",
        commands=[f"/opt/cloudhsm/bin/configure-cli -a {ADDRESSES} --hsm-ca-cert {CA}"],
        _sudo=True,
    )

# one command, since each is a round trip of its own
proof = f"set -- {ADDRESSES}\n{Path(WANTED['proof']).read_text()}"
server.shell(name="prove", commands=[proof], _sudo=True, _shell_executable="bash")
