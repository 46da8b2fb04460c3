"""What a plan is made of: a catalogue, limits, a host."""

from __future__ import annotations

import datetime as dt

from agent.catalogue import load
from agent.cloudhsm.ca import Ca
from agent.core.timeouts import Timeouts
from agent.facts import Facts

CATALOGUE = load()
LIMITS = Timeouts()
CA = Ca(
    pem=b"-----BEGIN CERTIFICATE-----\n",
    fingerprints=("ca" * 32,),
    keys=(),
    subject="CN=root",
    issuer="CN=root",
    not_before=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    not_after=dt.datetime(2036, 1, 1, tzinfo=dt.timezone.utc),
)
NOBLE = Facts("host", "ubuntu", "24.04", ("debian",), "Ubuntu 24.04.1 LTS", "x86_64", "deb", "systemd")
