"""Every warning that a report can carry: its code, its meaning, and what to do. A warning never makes a run fail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WarningCode:
    """A stable name for one kind of warning, its meaning, and what to do."""

    name: str
    meaning: str
    fix: str


WARNINGS: dict[str, WarningCode] = {
    each.name: each
    for each in (
        WarningCode(
            "backup-old",
            "the cluster has no recent backup",
            "look for the cause in CloudTrail, or ask AWS's support: AWS makes a backup every day",
        ),
        WarningCode(
            "ca-expires-soon", "the CA certificate ends within weeks", "replace it in time, on every host"
        ),
        WarningCode(
            "ca-key-unlisted",
            "the CA's key is of a kind that AWS does not list",
            "ask for a CA with RSA 2048 or larger",
        ),
        WarningCode(
            "ca-signature-old",
            "the CA is signed with an old algorithm",
            "have it issued again with SHA-256 or better",
        ),
        WarningCode(
            "checksum-replaced",
            "`--sha256` stands in for the checksum that AWS published",
            "leave `--sha256` out unless the mirror's files are your own",
        ),
        WarningCode(
            "client-leftovers",
            "files of another client lie on this host",
            "remove them when nothing uses them",
        ),
        WarningCode(
            "client-newer-available",
            "a newer client fits this host",
            "upgrade it with `--client-version`, when that suits you",
        ),
        WarningCode(
            "client-out-of-support",
            "AWS has ended the support of the installed client",
            "upgrade it with `--client-version`",
        ),
        WarningCode(
            "client-unverified",
            "a package was installed without a known checksum",
            "name a version that the catalogue knows, or pass `--sha256`",
        ),
        WarningCode(
            "ca-not-checked",
            "whether the CA is the cluster's is not known",
            "the client's own connection, which this run proves or not, is the proof that counts",
        ),
        WarningCode(
            "cluster-addresses-changed",
            "the cluster has other HSMs than the host was configured for",
            "run `hsm-agent configure`: without options it asks AWS again",
        ),
        WarningCode(
            "cluster-not-checked",
            "AWS could not be asked about the cluster; the addresses that were given are used",
            "let this host ask AWS: `hsm-agent explain` with the code that is named says how",
        ),
        WarningCode(
            "cluster-changing",
            "AWS is changing the cluster or its HSMs",
            "run the same command again when AWS has ended",
        ),
        WarningCode(
            "cluster-degraded",
            "AWS calls the cluster or an HSM degraded",
            "AWS replaces a failed HSM by itself; ask its support if it does not",
        ),
        WarningCode(
            "component-out-of-support",
            "AWS publishes this component no more for this OS",
            "move what uses it to another component or OS",
        ),
        WarningCode(
            "configure-unfinished",
            "the last `configure` that was asked for has not succeeded",
            "run `hsm-agent configure` again",
        ),
        WarningCode(
            "firewall-unread",
            "the rules of Windows Firewall could not be read",
            "run it elevated, or look at the rules by hand",
        ),
        WarningCode(
            "group-attached",
            "`--attach-group`: the agent attaches the cluster's security group to this instance",
            "nothing, if that is meant; `hsm-agent remove` detaches it",
        ),
        WarningCode(
            "group-not-detached",
            "a security group that the agent attached is, or may be, still there",
            "run the command that is named where somebody may change the network, or `hsm-agent remove` again",
        ),
        WarningCode(
            "hard-link-cut",
            "a file that had other names was replaced under one of them",
            "link them again, or use symbolic links, which are kept",
        ),
        WarningCode(
            "hsm-type-ending",
            "AWS ends the support of this type of HSM",
            "plan the move to hsm2m: first a client of SDK 5.9.0 or newer on every host",
        ),
        WarningCode(
            "log-folder-not-writable",
            "a program may not write the client's log",
            "give its user the right to write in that directory",
        ),
        WarningCode(
            "log-folder-owner",
            "the client's log directory belongs to another user than the program",
            "change the owner of the directory or of its files",
        ),
        WarningCode(
            "not-scheduled",
            "the daily check could not be registered",
            "register it by hand, or run `hsm-agent verify` by your own scheduler",
        ),
        WarningCode(
            "os-minor-old", "this release of the OS is older than the one that AWS tests", "update the OS"
        ),
        WarningCode("os-out-of-support", "this OS is out of support", "move to a newer one"),
        WarningCode(
            "package-script-failed",
            "a script of a package failed, and the package manager let it pass",
            "read its words, and install the package again when something is missing",
        ),
        WarningCode(
            "path-checked",
            "AWS shows why an HSM is not reached; the text says where that was looked for",
            "run the command in the hint of the `reach:` line",
        ),
        WarningCode(
            "path-clear",
            "an HSM is not reached, and nothing that AWS shows stops the packets",
            "look at what AWS does not show: this host's firewall, an appliance or a transit gateway between, the HSM",
        ),
        WarningCode(
            "path-not-checked",
            "why an HSM is not reached was not looked for everywhere",
            "allow the role of this host the action that is named, or look at that by hand",
        ),
        WarningCode(
            "platform-forced", "the catalogue row was named by the caller", "nothing, if that is meant"
        ),
        WarningCode(
            "previous-silent",
            "the configuration that was put back does not work either",
            "see the causes in the report: they were there before",
        ),
        WarningCode(
            "previous-unproven",
            "the configuration that was put back was not checked, since the run ended",
            "run `hsm-agent verify`",
        ),
        WarningCode(
            "previous-works", "the configuration that was put back was checked, and works", "nothing"
        ),
        WarningCode(
            "programs-unread",
            "which programs use the client could not be found out",
            "look who has so many files mapped; restart what uses the client after each change",
        ),
        WarningCode(
            "record-not-kept",
            "the record of what was asked for could not be written",
            "fix what the text names, and run it again",
        ),
        WarningCode(
            "record-unread",
            "the record of what was asked for is damaged, or of another host or version",
            "run `hsm-agent configure` with all options: it is recorded again",
        ),
        WarningCode(
            "report-cut",
            "the report was longer than its limits, and was cut",
            "see the log of this host for the rest",
        ),
        WarningCode(
            "report-dropped",
            "a report that waited to be delivered is gone",
            "see the text for which, and why",
        ),
        WarningCode(
            "report-not-kept",
            "the report could not be written to the state directory",
            "fix what the text names",
        ),
        WarningCode(
            "report-stuck",
            "a report that waited could not be read, or not be removed after it was dealt with",
            "fix what the text names, or remove the file: the others are delivered",
        ),
        WarningCode(
            "request-in-force",
            "a rollback changes the host, and not what is wanted of it",
            "run `hsm-agent configure` with what you want instead: until then `verify` reports drift",
        ),
        WarningCode("rollback-unneeded", "everything was as the snapshot has it", "nothing"),
        WarningCode(
            "rollback-unproven",
            "the snapshot that was put back is not known to have worked",
            "run `hsm-agent verify`",
        ),
        WarningCode(
            "run-beside",
            "another run was changing this host at the same time",
            "run it again when that has ended",
        ),
        WarningCode("sdk3-end-of-support", "Client SDK 3 is out of support", "move to SDK 5"),
        WarningCode(
            "settings-not-kept", "a setting that was there could not be kept", "pass it as an option"
        ),
        WarningCode(
            "service-role-missing",
            "the account lacks the role with which CloudHSM writes audit logs",
            "aws iam create-service-linked-role --aws-service-name cloudhsm.amazonaws.com",
        ),
        WarningCode(
            "settings-restored",
            "a configuration file was put back before the configure tool ran",
            "nothing, if its settings are right",
        ),
        WarningCode(
            "signature-unchecked",
            "the signature of a package could not be checked",
            "see the text; the checksum was compared",
        ),
        WarningCode(
            "signature-unusual",
            "a package is signed by somebody else than before",
            "make sure that it comes from AWS",
        ),
        WarningCode("single-hsm", "the key-availability check is off", "use two HSMs or more in production"),
        WarningCode(
            "snapshot-not-kept", "the state before this run could not be kept", "fix what the text names"
        ),
        WarningCode(
            "single-hsm",
            "the cluster has one HSM",
            "create a second one in another zone: `aws cloudhsmv2 create-hsm`",
        ),
        WarningCode(
            "single-zone",
            "all HSMs of the cluster are in one zone",
            "create an HSM in another zone: `aws cloudhsmv2 create-hsm`",
        ),
        WarningCode(
            "snapshot-passed-over",
            "a snapshot is of another host or of a newer hsm-agent, and was not used",
            "nothing, if this host is a copy; else use the newer hsm-agent",
        ),
        WarningCode(
            "snapshot-unsealed",
            "the snapshot that was put back is of an older hsm-agent, and has no checksum",
            "look at what was put back, then run `hsm-agent verify`",
        ),
        WarningCode(
            "snapshot-unsound",
            "a file of a snapshot is one that the client cannot read",
            "take another snapshot: `hsm-agent rollback RUN`",
        ),
        WarningCode(
            "state-closed",
            "others than root could change the state directory; it was closed, and its records were not believed",
            "find out who made it theirs",
        ),
        WarningCode("still-scheduled", "a task of the agent could not be removed", "remove it by hand"),
        WarningCode(
            "users-inconsistent",
            "a user of the cluster is not on every HSM",
            "create it again, or delete it, with cloudhsm-cli",
        ),
    )
}
