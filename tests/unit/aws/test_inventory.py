"""What EC2 and CloudHSM say of a cluster's surroundings, as values."""

from __future__ import annotations

from agent.aws.inventory import newest_backup, read_instances, read_other_interfaces

INTERFACE = {
    "networkInterfaceId": "eni-1",
    "vpcId": "vpc-1",
    "subnetId": "subnet-1",
    "groupSet": [{"groupId": "sg-1"}, {"groupId": "sg-2"}],
    "privateIpAddressesSet": [{"privateIpAddress": "10.0.1.7"}],
}


def test_an_instance_is_read_with_its_name_and_its_interfaces() -> None:
    tree = {
        "instanceId": "i-1",
        "instanceState": {"code": "16", "name": "running"},
        "placement": {"availabilityZone": "eu-central-1a"},
        "platform": "windows",
        "tagSet": [{"key": "name", "value": "no"}, {"key": "Name", "value": "web-1"}],
        "networkInterfaceSet": [INTERFACE],
    }
    (found,) = read_instances([{"reservationSet": [{"instancesSet": [tree]}]}, {"reservationSet": ""}])
    assert (found.id, found.name, found.state, found.zone) == ("i-1", "web-1", "running", "eu-central-1a")
    assert found.is_windows
    assert found.interfaces[0].groups == ("sg-1", "sg-2")


def test_of_an_instance_all_but_its_id_may_be_missing() -> None:
    (found,) = read_instances([{"reservationSet": [{"instancesSet": [{"instanceId": "i-1", "tagSet": ""}]}]}])
    assert (found.name, found.state, found.zone, found.is_windows, found.interfaces) == (
        "",
        "",
        "",
        False,
        (),
    )


def test_interfaces_of_instances_are_no_others() -> None:
    of_instance = {**INTERFACE, "attachment": {"instanceId": "i-1"}}
    function = {
        **INTERFACE,
        "networkInterfaceId": "eni-2",
        "interfaceType": "lambda",
        "description": "AWS Lambda",
    }
    (found,) = read_other_interfaces([{"networkInterfaceSet": [of_instance, function]}])
    assert (found.interface.id, found.kind, found.description) == ("eni-2", "lambda", "AWS Lambda")


def test_the_newest_backup_is_the_last_finished_one() -> None:
    backups = [
        {"BackupState": "READY", "CreateTimestamp": 100.0},
        {"BackupState": "READY", "CreateTimestamp": 300},
        {"BackupState": "CREATE_IN_PROGRESS", "CreateTimestamp": 400.0},
        {"BackupState": "READY"},
        {"BackupState": "READY", "CreateTimestamp": "yesterday"},
    ]
    assert newest_backup({"Backups": backups}) == 300.0
    assert newest_backup({"Backups": None}) == newest_backup({}) == 0.0
