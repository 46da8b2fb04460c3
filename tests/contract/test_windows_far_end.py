"""The far end alone where it may touch: on a throw-away Windows, inside Wine (see tests/windows)."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from tests.contract.far_end import ENTRY, started
from tests.contract.far_end import ca as ca  # noqa: PLC0414 -- pytest takes it from here
from tests.windows.cluster import FIRST, SECOND
from tests.windows.found import Source
from tests.windows.job import (
    a_virgin_host,  # noqa: F401 -- pytest takes it from here for every test
)

assert sys.platform == "win32"


def test_a_look_is_of_windows(ca: bytes) -> None:
    with started(*ENTRY) as far_end:
        far_end.ask("verify", ca_cert=f"inline:{ca.decode()}")
        assert far_end.record()["event"] == "hello"
        report = far_end.until("report")["report"]
        assert (report["command"], report["host"]["os"]) == ("verify", "windows")
        far_end.hang_up()
        assert far_end.end() == (0, b"")


def test_a_package_is_asked_for_and_its_absence_reported(ca: bytes) -> None:
    with started(*ENTRY) as far_end:
        far_end.ask(
            "configure",
            ca_cert=f"inline:{ca.decode()}",
            package_source="/srv/mirror",
            platform="windows",
            accept_single_hsm=True,
        )
        assert far_end.record()["event"] == "hello"
        wanted = far_end.until("want")
        assert (wanted["what"], wanted["url"].startswith("/srv/mirror/Windows/AWSCloudHSMCLI-")) == (
            "file",
            True,
        )
        for answer in (
            {"wait": True},
            {"code": "package-not-found", "sentence": "no such file", "saw": "404", "want": "a package"},
        ):
            far_end.tell(json.dumps(answer).encode() + b"\n")
        report = far_end.until("report")["report"]
        assert (report["code"], report["exit_status"]) == ("package-not-found", 20), report["steps"]
        far_end.hang_up()
        assert far_end.end() == (0, b"")


def test_a_host_is_proven_with_a_package_that_came_over_the_wire(ca: bytes) -> None:
    vendor = Source("vendor")
    package = Path(vendor.msi("CLI")).read_bytes()
    checksums = tuple(f"{Path(path).name}={digest}" for path, digest in vendor.checksums().items())
    with started(*ENTRY) as far_end:
        far_end.ask(
            "configure", hsm_ip=(FIRST, SECOND), ca_cert=f"inline:{ca.decode()}", package_source="/srv/mirror",
            platform="windows", sha256=checksums,
        )  # fmt: skip
        assert far_end.record()["event"] == "hello"
        wanted = far_end.until("want")
        assert wanted["sha256"] == hashlib.sha256(package).hexdigest()
        head = {"size": len(package), "sha256": wanted["sha256"]}
        far_end.tell(json.dumps(head).encode() + b"\n" + package)
        report = far_end.until("report")["report"]
        assert (report["outcome"], report["changed"]) == ("ok", True), report
        assert [hsm["reached"] for hsm in report["hsms"]] == [True, True]
    with started(*ENTRY) as far_end:
        far_end.ask("remove")
        assert far_end.record()["event"] == "hello"
        assert far_end.until("report")["report"]["outcome"] == "ok"
