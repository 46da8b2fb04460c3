"""The order in which workers take test files: the longest first, so that none is alone with one at the end.

A file goes to one worker as a whole, for the sake of what its fixtures cost. The first file of real hosts builds their
images, and those that follow it here keep the other workers busy meanwhile: they need no host.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
FIRST = (
    "lab/test_package_faults.py",
    "laws/test_records.py",
    "laws/test_laws.py",
    "house/test_packaging.py",
    "laws/test_snapshots.py",
    "laws/test_configuration.py",
    "wine/test_under_wine.py",
    "lab/test_undo_and_kill.py",
    "lab/test_proof_faults.py",
    "lab/test_pythons.py",
    "lab/test_packages_of_the_agent.py",
    "lab/test_first_boot.py",
    "wine/test_build.py",
    "lab/test_fleet.py",
    "lab/test_sdk3.py",
    "lab/test_demo.py",
    "lab/test_ssh.py",
    "lab/test_reporting.py",
    "lab/test_main_job.py",
    "lab/test_lab_itself.py",
    "house/test_house.py",
    "contract/test_host.py",
    "contract/test_ssh.py",
    "contract/test_user_data_runs.py",
    "contract/test_environments.py",
    "laws/test_hostile_reports.py",
    "laws/test_reporting.py",
    "golden/test_inventories.py",
)
_RANKS = {HERE / name: rank for rank, name in enumerate(FIRST)}


def rank(path: Path) -> int:
    """Return the place of a test file; all that are not named come last, and keep their order."""
    return _RANKS.get(path, len(FIRST))
