"""The order in which workers take test files: the longest first, so that none is alone with one at the end.

A file goes to one worker as a whole, for the sake of what its fixtures cost. The first file of real hosts builds their
images, and those that follow it here keep the other workers busy meanwhile: they need no host.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
FIRST = (
    "system/test_package_faults.py",
    "properties/test_records.py",
    "properties/test_laws.py",
    "architecture/test_packaging.py",
    "properties/test_snapshots.py",
    "properties/test_configuration.py",
    "windows/test_under_wine.py",
    "system/test_undo_and_kill.py",
    "system/test_proof_faults.py",
    "system/test_pythons.py",
    "system/test_packages_of_the_agent.py",
    "system/test_first_boot.py",
    "windows/test_build.py",
    "system/test_fleet.py",
    "system/test_sdk3.py",
    "system/test_fleet_over_ssm.py",
    "system/test_cloud.py",
    "system/test_agent_that_stays.py",
    "system/test_hosts_without_python.py",
    "system/test_cloud_fleet.py",
    "system/test_cloud_boot.py",
    "system/test_demo.py",
    "system/test_ssh.py",
    "system/test_reporting.py",
    "system/test_main_job.py",
    "system/test_lab_itself.py",
    "system/test_bootstrap.py",
    "system/test_sources_in_aws.py",
    "contract/test_fleet_over_ssm.py",
    "architecture/test_tree.py",
    "contract/test_host.py",
    "contract/test_ssh.py",
    "contract/test_user_data_runs.py",
    "contract/test_environments.py",
    "properties/test_hostile_reports.py",
    "properties/test_reporting.py",
    "golden/test_inventories.py",
)
_RANKS = {HERE / name: rank for rank, name in enumerate(FIRST)}


def rank(path: Path) -> int:
    """Return the place of a test file; all that are not named come last, and keep their order."""
    return _RANKS.get(path, len(FIRST))
