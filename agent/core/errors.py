"""Every error the agent can report: one table of codes, and the exception that carries them."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Literal

# what users see and scripts compare; a type, so that mypy finds every code that the table below lacks
CodeName = Literal[
    "internal",
    "usage",
    "config-invalid",
    "inventory-invalid",
    "user-data-too-large",
    "nothing-recorded",
    "drift",
    "platform-unsupported",
    "component-unsupported",
    "client-end-of-support",
    "not-root",
    "run-locked",
    "python-missing",
    "openssl-unusable",
    "sudo-refused",
    "tree-missing",
    "demo-unavailable",
    "no-space",
    "no-exec",
    "no-resources",
    "read-only",
    "unreadable",
    "write-failed",
    "aws-no-credentials",
    "aws-denied",
    "aws-unreachable",
    "aws-throttled",
    "aws-clock",
    "aws-region-unknown",
    "aws-refused",
    "download-failed",
    "package-not-found",
    "checksum-mismatch",
    "checksum-unknown",
    "package-failed",
    "package-locked",
    "package-conflict",
    "package-downgrade",
    "reboot-required",
    "ca-unreadable",
    "ca-not-a-certificate",
    "ca-is-private-key",
    "ca-expired",
    "ca-not-yet-valid",
    "ca-damaged",
    "ca-key-weak",
    "ca-fingerprint-differs",
    "ca-would-be-replaced",
    "ca-not-of-cluster",
    "hsm-timed-out",
    "hsm-refused",
    "hsm-no-route",
    "hsm-firewalled",
    "hsm-no-tls",
    "group-not-attached",
    "group-rule-missing",
    "network-acl-blocks",
    "route-missing",
    "vpc-not-connected",
    "hsm-degraded",
    "client-tls-failed",
    "client-disconnected",
    "client-failed",
    "client-hung",
    "library-unloadable",
    "cluster-uninitialized",
    "cluster-not-activated",
    "cluster-empty",
    "cluster-not-found",
    "hsm-not-of-cluster",
    "sdk-not-for-cluster",
    "permissions-unsafe",
    "configure-failed",
    "configure-not-applied",
    "single-hsm-not-accepted",
    "service-failed",
    "firewall-failed",
    "rolled-back",
    "rollback-failed",
    "snapshot-damaged",
    "report-undelivered",
    "report-refused",
    "hosts-failed",
    "host-name-unknown",
    "ssh-timed-out",
    "ssh-refused",
    "ssh-no-route",
    "ssh-failed",
    "host-key-unknown",
    "host-key-changed",
    "login-refused",
    "key-unusable",
    "link-lost",
    "far-end-failed",
    "failure-limit",
    "host-deadline",
    "timed-out",
    "interrupted",
]


@dataclass(frozen=True)
class ErrorCode:
    """A stable name for one kind of failure: its exit status, its meaning, its usual cause, and what to do."""

    name: CodeName
    exit_status: int
    meaning: str
    causes: str
    fix: str


class AgentError(Exception):
    """A failure with a cause: a code from the table, a sentence, what was seen and wanted, and a hint to act on."""

    def __init__(
        self, code: CodeName, sentence: str, *, saw: str = "", want: str = "", hint: str | None = None
    ) -> None:
        super().__init__(sentence)
        self.code = CODES[code]
        self.sentence = sentence
        self.saw = saw
        self.want = want
        self.hint = self.code.fix if hint is None else hint

    @property
    def ends_run(self) -> bool:
        """Whether the whole run is over, and not only the part that raised this: no part may report it as its own."""
        return self.code.name in ("interrupted", "timed-out")


class DownloadTimeoutError(AgentError):
    """A download whose time was up, and which had no other error."""


# The classes of failure; contract: one exit status per class, never re-used, never changed.
EXIT_STATUSES: dict[int, str] = {
    0: "the desired state holds and was verified",
    1: "a defect of the agent itself",
    2: "usage: flags, configuration file or inventory",
    3: "plan: changes are needed; verify: drift",
    10: "this platform or component is not in the catalogue",
    11: "cannot start",
    12: "AWS could not be asked",
    20: "a download failed",
    21: "wrong bytes, or a checksum is required and unknown",
    22: "the package manager failed, or its lock never became free",
    23: "done, but a reboot is required to finish",
    30: "the CA is unusable",
    31: "not the CA that is wanted",
    40: "no HSM could be reached",
    41: "degraded: some HSMs are reached, others not",
    42: "reached, but the client cannot talk to them",
    43: "the cluster is not ready",
    44: "what was asked for is not what AWS says",
    50: "the configure tool failed, or its effect is not in the file",
    51: "the run failed and the previous configuration was put back",
    52: "putting it back failed as well",
    60: "all is well but a report could not be delivered; the warning says whether the next run sends it",
    70: "fleet: some hosts failed",
    71: "fleet: stopped by its failure limit",
    75: "a limit ran out; trying again may help",
    130: "interrupted",
}

_TABLE = (
    ErrorCode(
        "internal",
        1,
        "the agent itself failed",
        "a defect; nothing about this host is proven",
        "the log has the traceback (`journalctl -t hsm-agent`, Event Log); please report it with `hsm-agent facts`",
    ),
    ErrorCode(
        "usage",
        2,
        "the command line is wrong",
        "a flag that does not exist, or a value it does not take",
        "`hsm-agent COMMAND --help` lists the flags",
    ),
    ErrorCode(
        "config-invalid",
        2,
        "an option, an environment variable or the configuration file is wrong",
        "a typing error, an unknown key, two options that exclude each other",
        "correct every line of the complaint; they are all given at once",
    ),
    ErrorCode(
        "inventory-invalid",
        2,
        "the inventory cannot be used",
        "a typing error, a host that is named twice, a group that does not exist",
        "correct every line of the complaint; they are all given at once, and no host was contacted",
    ),
    ErrorCode(
        "user-data-too-large",
        2,
        "this does not fit into user-data",
        "an agent that is to travel inline, a long chain of certificates, many checksums",
        "what is too big is named; the agent belongs into a bucket: `--agent s3://BUCKET/KEY --agent-sha256 HASH`",
    ),
    ErrorCode(
        "nothing-recorded",
        2,
        "there is no earlier run to use",
        "no `configure` ran here yet, or its state was removed",
        "run `hsm-agent configure --hsm-ip IP --ca-cert FILE` first",
    ),
    ErrorCode(
        "drift",
        3,
        "the host differs from what is wanted",
        "a package, the CA or a configuration file was changed since the last `configure`, or `plan` on a new host",
        "run `hsm-agent configure` with the same options; without options it is the last one again",
    ),
    ErrorCode(
        "platform-unsupported",
        10,
        "the vendor publishes no client for this operating system",
        "a distribution AWS does not list, a release too new or too old, or another processor",
        "use a listed platform, or name a row this host is compatible with: `--platform el9`",
    ),
    ErrorCode(
        "component-unsupported",
        10,
        "the vendor does not make this component for this platform",
        "dyn on RHEL 10, openssl-provider on old releases, ksp outside Windows",
        "`hsm-agent facts` lists the components that fit this host",
    ),
    ErrorCode(
        "client-end-of-support",
        10,
        "this client version is not made for this platform, or only another SDK is",
        "the vendor dropped or had not yet added this platform in that version",
        "choose a version from the range that is named, or a newer operating system",
    ),
    ErrorCode(
        "not-root",
        11,
        "changing this host needs root",
        "the command was started as an ordinary user",
        "run it with sudo; on Windows as an administrator, elevated",
    ),
    ErrorCode(
        "run-locked",
        11,
        "another hsm-agent is at work on this host",
        "a second configure, a timer, or user-data still running",
        "wait for it, or look at it: its process id is named",
    ),
    ErrorCode(
        "python-missing",
        11,
        "the host has no Python that the agent can use",
        "Python 3.9 or newer is needed; Amazon Linux 2 and RHEL 8 have an older one",
        "install one with the host's package manager, such as python3.11, then run this again",
    ),
    ErrorCode(
        "openssl-unusable",
        11,
        "this host's OpenSSL can make no TLS connection",
        "an openssl.cnf that activates a provider without those it needs (half of FIPS), a Python built without ssl",
        "correct openssl.cnf (`openssl version -d` says where); with `OPENSSL_CONF=/dev/null` set it is not read",
    ),
    ErrorCode(
        "sudo-refused",
        11,
        "the user may not become root on the host without a password",
        "sudo asks for a password, wants a terminal, or does not know this user",
        "give the user `NOPASSWD: ALL` in /etc/sudoers.d, or connect as root",
    ),
    ErrorCode(
        "tree-missing",
        11,
        "there is no archive of the agent to send to the hosts",
        "this agent was installed from a checkout, which has none",
        "`python packaging/build.py --tree` makes it in dist/; then name it: `--tree dist/hsm-agent-far-end-….tar.gz`",
    ),
    ErrorCode(
        "demo-unavailable",
        11,
        "this machine cannot give the demo a throw-away root",
        "a container without privileges, a kernel without overlayfs, or a missing program",
        "run it on a virtual machine or a privileged container, with util-linux, iproute2 and openssl",
    ),
    ErrorCode(
        "no-space",
        11,
        "the disk is full",
        "no room for the download, the package or the state",
        "free the space that is named, then run the same command again",
    ),
    ErrorCode(
        "no-exec",
        11,
        "the client's programs may not run from where they are installed",
        "a hardening rule that mounts /opt with noexec",
        "let programs run there, `mount -o remount,exec /opt` and its line in /etc/fstab, or give /opt/cloudhsm a file "
        "system of its own",
    ),
    ErrorCode(
        "no-resources",
        11,
        "this host cannot start another program now",
        "too few open files or processes for this session or service, no memory, no /dev/null",
        "look at `ulimit -a`, TasksMax and LimitNOFILE of the service, and `ls -l /dev/null`; then run this again",
    ),
    ErrorCode(
        "read-only",
        11,
        "the file system cannot be written",
        "a read-only mount, an immutable image, or a failed disk",
        "remount it writable (`findmnt -T PATH` names the mount), then run the same command again",
    ),
    ErrorCode(
        "unreadable",
        11,
        "a file is there but cannot be read",
        "it is a folder, a FIFO or a device, is too large, or permission is missing",
        "name a regular file that this user may read",
    ),
    ErrorCode(
        "write-failed",
        11,
        "a file could not be written",
        "permissions, an immutable attribute, or a folder that is a file",
        "look at the path that is named: `ls -ld PATH`, `lsattr -d PATH`",
    ),
    ErrorCode(
        "aws-no-credentials",
        12,
        "there are no AWS credentials, or AWS does not take them",
        "no instance profile, a metadata service that is off or a hop away, credentials that ended or are mistyped",
        "attach an instance profile, or set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; where the "
        "metadata service does not answer in a container, set HttpPutResponseHopLimit of the instance to 2",
    ),
    ErrorCode(
        "aws-denied",
        12,
        "AWS denies an action to these credentials",
        "a role without the action, a policy of the organisation or of a VPC endpoint that forbids it",
        "allow the action that is named to the role of this host",
    ),
    ErrorCode(
        "aws-unreachable",
        12,
        "AWS's API is not reached, or does not answer as it should",
        "a private subnet without NAT or VPC endpoint, a proxy, a region with a typing error, an outage",
        "let this host reach the endpoint that is named over TCP 443",
    ),
    ErrorCode(
        "aws-throttled",
        12,
        "AWS throttles these requests",
        "many hosts that ask at once",
        "run the same command again in some minutes; roll out in smaller waves",
    ),
    ErrorCode(
        "aws-clock",
        12,
        "AWS refuses the time of this host",
        "a clock that is more than 5 minutes wrong",
        "set the clock: `chronyc makestep`, or `w32tm /resync` on Windows; if it is right, the secret key is wrong",
    ),
    ErrorCode(
        "aws-region-unknown",
        12,
        "the AWS region is not known",
        "neither a variable nor instance metadata names one, and none is guessed",
        "set AWS_REGION to the region of the cluster",
    ),
    ErrorCode(
        "aws-refused",
        12,
        "AWS refuses a request",
        "a name of something that is not there, or is in another region",
        "AWS's own sentence says what it does not take",
    ),
    ErrorCode(
        "download-failed",
        20,
        "a package could not be downloaded",
        "no route to the mirror, a proxy, TLS, a wrong clock, or a broken server",
        "check with `curl -I URL` from this host; `--package-source` names a mirror or a folder instead",
    ),
    ErrorCode(
        "package-not-found",
        20,
        "the mirror does not have this file",
        "the vendor withdraws old versions (404, 403), or a mirror with another layout",
        "pin a version that is still published, or put the file into your mirror under the same name",
    ),
    ErrorCode(
        "checksum-mismatch",
        21,
        "the bytes are not the ones the vendor published",
        "a truncated or altered file, a mirror that serves something else, a proxy's error page",
        "do not install it; fetch the file again and compare its SHA-256 with the vendor's page",
    ),
    ErrorCode(
        "checksum-unknown",
        21,
        "no checksum is known for this file, so it is not installed",
        "a version that the catalogue does not list",
        "pass `--sha256 FILE=HASH` from a source you trust, or a version that `hsm-agent facts` lists",
    ),
    ErrorCode(
        "package-failed",
        22,
        "the package manager could not install or remove the package",
        "an unmet dependency, a broken package database, a failing maintainer script",
        "run the command that is shown by hand and repair what it says, then run this again",
    ),
    ErrorCode(
        "package-locked",
        22,
        "the package manager's lock did not become free in time",
        "unattended upgrades, or another installation that hangs",
        "wait for the process that is named to end, or give a longer `--timeout`",
    ),
    ErrorCode(
        "package-conflict",
        22,
        "an SDK 3 client is installed, and it excludes SDK 5",
        "the host was set up with the end-of-support client",
        "say `--sdk 5` to replace it (programs that use it must be restarted), or `--sdk 3` to keep it",
    ),
    ErrorCode(
        "package-downgrade",
        22,
        "a newer version is installed than the one that is wanted",
        "a pin that is older than the host",
        "raise `--client-version`, or `hsm-agent remove` first if you do want the older one",
    ),
    ErrorCode(
        "reboot-required",
        23,
        "Windows must be restarted to finish an installation",
        "a file that was in use is replaced at the next start",
        "restart the computer, then run the same command again",
    ),
    ErrorCode(
        "ca-unreadable",
        30,
        "the CA source cannot be read",
        "a wrong path, a folder, an empty or oversized file, an https source that fails",
        "name the file that initialised the cluster: `--ca-cert /path/customerCA.crt`",
    ),
    ErrorCode(
        "ca-not-a-certificate",
        30,
        "this is not a PEM certificate of a CA",
        "a DER file, a certificate request, an end-entity certificate, or an HTML page saved as .crt",
        "export the issuing CA as PEM; from DER: `openssl x509 -inform der -in FILE -out customerCA.crt`",
    ),
    ErrorCode(
        "ca-is-private-key",
        30,
        "the file holds a private key; it was not read further and not copied",
        "customerCA.key instead of customerCA.crt, or both in one file",
        "pass the certificate alone, and keep the key off this host",
    ),
    ErrorCode(
        "ca-expired",
        30,
        "the CA certificate has expired by this host's clock",
        "an old CA, or a clock that is wrong",
        "check `date -u` first; if the clock is right, the cluster needs clients with a valid CA",
    ),
    ErrorCode(
        "ca-not-yet-valid",
        30,
        "the CA certificate is not valid yet by this host's clock",
        "a clock that is behind, nearly always",
        "check `date -u` and time synchronisation (chrony), then run this again",
    ),
    ErrorCode(
        "ca-damaged",
        30,
        "the text looks like a certificate but cannot be decoded",
        "a cut or edited file, or a secret that lost characters",
        "copy customerCA.crt again from where the cluster was initialised",
    ),
    ErrorCode(
        "ca-key-weak",
        30,
        "the CA's key is too weak for the client",
        "an RSA key below 2048 bits; clients 5.17.0 and 5.17.1 refuse it, and it is unsafe with any",
        "the trust anchor is fixed at initialisation: a new cluster with a stronger CA is the only cure",
    ),
    ErrorCode(
        "ca-fingerprint-differs",
        31,
        "this is not the CA whose fingerprint was given",
        "the wrong file, or the fingerprint of another cluster",
        "compare with `openssl x509 -noout -fingerprint -sha256 -in FILE`",
    ),
    ErrorCode(
        "ca-would-be-replaced",
        31,
        "another CA is on this host already",
        "a host of another cluster, or a new cluster",
        "pass `--replace-ca` if this host really moves to the other cluster",
    ),
    ErrorCode(
        "ca-not-of-cluster",
        31,
        "this CA did not issue the certificate of the cluster",
        "the CA of another cluster, or one that was made anew with the same name",
        "pass the customerCA.crt that the cluster was initialised with",
    ),
    ErrorCode(
        "hsm-timed-out",
        40,
        "an HSM did not answer in time",
        "the cluster's security group is not attached to this instance; a network ACL; no route",
        "allow TCP 2223-2225 from this instance: attach security group cloudhsm-cluster-<id>-sg to it",
    ),
    ErrorCode(
        "hsm-refused",
        40,
        "the address answers, but not on this port",
        "the address is not an HSM's ENI, or a firewall rejects",
        "compare the address with `aws cloudhsmv2 describe-clusters --query 'Clusters[].Hsms[].EniIp'`",
    ),
    ErrorCode(
        "hsm-no-route",
        40,
        "there is no network path to the address",
        "no route, a local firewall that prohibits, or nothing with this address on the local network",
        "check `ip route get ADDRESS` and the route tables of this subnet",
    ),
    ErrorCode(
        "hsm-firewalled",
        40,
        "this host's own firewall does not let the connection out",
        "Windows Firewall, or another filter of this host, blocks what goes out by default or by a rule",
        "`hsm-agent configure --allow-firewall` adds a rule for TCP 2223-2225, and `remove` takes it off",
    ),
    ErrorCode(
        "hsm-no-tls",
        40,
        "the port accepts, but nothing behind it speaks TLS",
        "an HSM that hangs, a wrong address, or a device in between that swallows packets",
        "compare the address with describe-clusters; if it is right, look at the HSM's state there",
    ),
    ErrorCode(
        "group-not-attached",
        40,
        "no security group of this host lets it talk to the HSMs",
        "the security group of the cluster is not attached to this instance",
        "run the command that is shown: it attaches the group and keeps the others",
    ),
    ErrorCode(
        "group-rule-missing",
        40,
        "a security group lacks the rule for TCP 2223-2225",
        "a rule that was removed or narrowed",
        "run the command that is shown: it adds the rule",
    ),
    ErrorCode(
        "network-acl-blocks",
        40,
        "a network ACL stops TCP 2223-2225 or its answers",
        "an ACL that is stricter than AWS's default; it also judges answers, which come to ports from 1024 up",
        "run the command that is shown: it adds an entry before the one that denies",
    ),
    ErrorCode(
        "route-missing",
        40,
        "a route table has no route between this host and the HSMs",
        "a route that was removed, or whose target is gone",
        "run the command that is shown: it adds the route",
    ),
    ErrorCode(
        "vpc-not-connected",
        40,
        "this host and the cluster are in VPCs that are not connected",
        "a peering that is not active, or none",
        "connect the VPCs, or run in the VPC of the cluster",
    ),
    ErrorCode(
        "hsm-degraded",
        41,
        "some HSMs are reached, others not",
        "one HSM is being replaced, or one subnet is not allowed",
        "cure what is named for each HSM; keys may be unavailable until then",
    ),
    ErrorCode(
        "client-tls-failed",
        42,
        "the HSM's certificate was not issued by this customerCA.crt",
        "the CA of another cluster, or a CA the client refuses",
        "place the CA that initialised this cluster: `--ca-cert FILE --replace-ca`",
    ),
    ErrorCode(
        "client-disconnected",
        42,
        "the HSM ends the connection",
        "the cluster enforces mutual TLS and this host has no client certificate",
        "pass `--client-cert` and `--client-key`",
    ),
    ErrorCode(
        "client-failed",
        42,
        "the client could not talk to the HSMs",
        "the client's own words are shown",
        "run `/opt/cloudhsm/bin/cloudhsm-cli cluster hsm-info` by hand and read /opt/cloudhsm/run/*.log",
    ),
    ErrorCode(
        "client-hung",
        42,
        "the client did not answer in time",
        "an HSM that accepts connections and is silent; a host that is overloaded",
        "run `/opt/cloudhsm/bin/cloudhsm-cli cluster hsm-info` by hand; check the HSMs' state",
    ),
    ErrorCode(
        "library-unloadable",
        42,
        "the client's library cannot be loaded on this host",
        "a shared library it needs is missing",
        "install the library that is named with the host's package manager",
    ),
    ErrorCode(
        "cluster-uninitialized",
        43,
        "the cluster is not initialised",
        "its CSR was never signed, or AWS is still at it",
        "sign the CSR of the cluster and run `aws cloudhsmv2 initialize-cluster`",
    ),
    ErrorCode(
        "cluster-not-activated",
        43,
        "the cluster is initialised but not activated",
        "`cluster activate` was never run",
        "run `/opt/cloudhsm/bin/cloudhsm-cli cluster activate` once, from one host",
    ),
    ErrorCode(
        "cluster-empty",
        43,
        "the cluster has no HSM that can be used",
        "its HSMs are deleted, or are still being created",
        "create an HSM: `aws cloudhsmv2 create-hsm`, and wait until it is ACTIVE",
    ),
    ErrorCode(
        "cluster-not-found",
        43,
        "there is no such cluster in this region",
        "an id with a typing error, another region or account, a deleted cluster",
        "list those that are there: `aws cloudhsmv2 describe-clusters`",
    ),
    ErrorCode(
        "hsm-not-of-cluster",
        44,
        "an address that was given is not one of the cluster's HSMs",
        "an HSM that was deleted and made anew, or an address of another cluster",
        "leave the addresses out, or give those that the cluster has",
    ),
    ErrorCode(
        "sdk-not-for-cluster",
        44,
        "this client cannot talk to this type of HSM",
        "SDK 3, or a client before 5.9.0, with hsm2m",
        "use SDK 5 with the newest client",
    ),
    ErrorCode(
        "permissions-unsafe",
        50,
        "others than root may change what the client runs or reads",
        "a chmod or chown by hand, or a folder above the client that is open to others",
        "give what is named back to root, and take the right to write from everybody else",
    ),
    ErrorCode(
        "configure-failed",
        50,
        "the configure tool is missing, failed or hung",
        "a damaged package, or an option this client version does not know",
        "run the command that is shown by hand; reinstalling the package restores the tool",
    ),
    ErrorCode(
        "configure-not-applied",
        50,
        "the configure tool ended, but the file does not hold what was asked",
        "a read-only file, a multi-cluster configuration, or a defect of the tool",
        "compare the file that is named with what is wanted",
    ),
    ErrorCode(
        "single-hsm-not-accepted",
        50,
        "there is one HSM, and keys must be on two before they can be used",
        "a one-HSM cluster with the key-availability check on",
        "add an HSM, or accept the risk to the keys: `--accept-single-hsm`",
    ),
    ErrorCode(
        "service-failed",
        50,
        "the SDK 3 daemon does not run",
        "cloudhsm-client.service failed to start",
        "`journalctl -u cloudhsm-client` says why; on Windows the newest cloudhsm.log in the client's folder",
    ),
    ErrorCode(
        "firewall-failed",
        50,
        "the rule of the firewall could not be added or removed",
        "a policy or another program that manages the firewall, or a firewall service that does not run",
        "run the command that is shown by hand; without `--allow-firewall` the firewall is left alone",
    ),
    ErrorCode(
        "rolled-back",
        51,
        "the run failed and the previous configuration was put back",
        "the cause stands beside it",
        "cure the cause, then run the same command again",
    ),
    ErrorCode(
        "rollback-failed",
        52,
        "the run failed, and putting the previous configuration back failed as well",
        "a disk that is full or read-only",
        "cure it, then `hsm-agent rollback`: the snapshot is kept",
    ),
    ErrorCode(
        "snapshot-damaged",
        52,
        "what was kept to go back to is not as it was written",
        "a damaged disk, or somebody edited it",
        "`hsm-agent rollback RUN` takes another run; else configure anew: `hsm-agent configure`",
    ),
    ErrorCode(
        "report-undelivered",
        60,
        "a report could not be delivered",
        "a receiver that is down or refuses the token, a certificate this host does not trust, a missing folder",
        "cure what the warning names; the next run sends what is kept: `sudo hsm-agent verify`",
    ),
    ErrorCode(
        "report-refused",
        60,
        "a report was refused by its receiver, and is not kept",
        "a receiver that takes no such reports: too long, or of another form",
        "cure what the warning names, then report anew: `sudo hsm-agent verify`",
    ),
    ErrorCode(
        "hosts-failed",
        70,
        "some hosts are not proven",
        "each host's own cause stands in the table",
        "cure the causes, then run the command that is shown: hosts that are proven are left alone",
    ),
    ErrorCode(
        "host-name-unknown",
        70,
        "the host's name could not be resolved",
        "a typing error, a name server that is out of reach, a name that only a jump host knows",
        "check with `getent hosts NAME`; `address` in the inventory or `HostName` in ssh's configuration names it",
    ),
    ErrorCode(
        "ssh-timed-out",
        70,
        "the host did not answer in time over SSH",
        "a security group or firewall that drops, a host that is off or hangs, a wrong address",
        "check with `ssh -v HOST` from here: TCP 22 must be allowed from this machine",
    ),
    ErrorCode(
        "ssh-refused",
        70,
        "the host answers, but nothing listens on its SSH port",
        "sshd does not run, another port, a firewall that rejects",
        "name the port in the inventory or in ssh's configuration",
    ),
    ErrorCode(
        "ssh-no-route",
        70,
        "there is no network path to the host",
        "no route, a jump host that is not named, or nothing with this address on the local network",
        "check `ip route get ADDRESS`; hosts in private subnets need a jump host (`ProxyJump`)",
    ),
    ErrorCode(
        "ssh-failed",
        70,
        "the SSH connection could not be made",
        "what answers is no SSH server, it drops connections (MaxStartups), or no algorithm is shared",
        "check with `ssh -v HOST` from here",
    ),
    ErrorCode(
        "host-key-unknown",
        70,
        "the host's key is not in known_hosts",
        "a new host, or a known_hosts file of another machine",
        "compare the fingerprint with the instance's console output, then `ssh-keyscan` or `--trust-new-hosts`",
    ),
    ErrorCode(
        "host-key-changed",
        70,
        "the host's key is not the one in known_hosts",
        "a host that was re-created at the same address, or somebody in between",
        "find out which; if the host is new, remove the old line: `ssh-keygen -R HOST`",
    ),
    ErrorCode(
        "login-refused",
        70,
        "the host refuses the login",
        "the wrong user or key, or an agent that does not hold the key",
        "check with `ssh -v USER@HOST`; `user` and `key` can be named in the inventory",
    ),
    ErrorCode(
        "key-unusable",
        70,
        "a private key for the login cannot be used",
        "the file is missing or damaged, or has a passphrase and is in no agent",
        "load it into the agent with `ssh-add FILE`; nothing here asks for a passphrase",
    ),
    ErrorCode(
        "link-lost",
        70,
        "the connection broke, and the host's report could not be read afterwards",
        "a host that went down or was rebooted, or a network that failed",
        "the host may have finished alone: run the command that is shown, it continues there",
    ),
    ErrorCode(
        "far-end-failed",
        70,
        "the agent on the host did not answer as it should",
        "a defect, a login shell that does not run commands, a host out of memory",
        "look at its log there (`journalctl -t hsm-agent`), then run the command that is shown: it continues",
    ),
    ErrorCode(
        "failure-limit",
        71,
        "the roll-out stopped: too many hosts failed",
        "a fault that all hosts share, most often: a wrong CA, a security group, a package source",
        "cure the cause, then run the command that is shown; `--max-failed` sets the limit",
    ),
    ErrorCode(
        "host-deadline",
        75,
        "the host did not end within its deadline",
        "a host, a network or a package manager that hangs",
        "look at the step it was at; it may still be at work. `--deadline` gives more time",
    ),
    ErrorCode(
        "timed-out",
        75,
        "the run's time limit ran out",
        "a slow mirror, a held lock, a limit that is too short",
        "run the same command again, with a longer `--timeout`",
    ),
    ErrorCode(
        "interrupted",
        130,
        "the run was interrupted",
        "Ctrl-C, SIGTERM or a shutdown",
        "run the same command again; it completes what is left",
    ),
)

CODES: dict[str, ErrorCode] = {code.name: code for code in _TABLE}

# of OSError: too many open files in this process and in the system, too many processes, no memory
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM)
# Python and the C library report these as text, without a type or a number
_EXHAUSTED_WORDS = (
    "can't start new thread",
    "failed to map segment from shared object",
    "cannot allocate memory",
    "Too many open files",
    "cannot open shared object file: Error 24",
)


def unexpected(crash: BaseException, sentence: str = "the agent failed") -> AgentError:
    """Return the error for an unexpected exception: a defect, unless the machine itself lacks something.

    Threads and modules are needed in many places, and a limit or a missing module can hit any of them.
    """
    if is_exhaustion(crash):
        saw = (crash.strerror if isinstance(crash, OSError) else None) or str(crash) or "no memory"
        want = "files, processes and memory for a run"
        return AgentError("no-resources", "this machine had nothing left for the agent", saw=saw, want=want)
    if isinstance(crash, ModuleNotFoundError) and not (crash.name or "agent").startswith("agent"):
        want = "a whole Python, as a distribution's package brings it"
        return AgentError(
            "python-missing", "this Python lacks a part of it", saw=f"no module {crash.name}", want=want
        )
    return AgentError("internal", sentence, saw=f"{type(crash).__name__}: {crash}")


def is_exhaustion(crash: BaseException) -> bool:
    """Tell whether the machine is at its limits: open files, processes and threads, memory."""
    if isinstance(crash, OSError):
        return crash.errno in EXHAUSTED
    by_text = isinstance(crash, (RuntimeError, ImportError)) and any(
        each in str(crash) for each in _EXHAUSTED_WORDS
    )
    return by_text or isinstance(crash, MemoryError)


def immutable(path: str) -> AgentError:
    """Return the error for a path that an attribute of the file system protects from every user."""
    return AgentError(
        "write-failed",
        f"{path} cannot be written",
        saw=f"{path} has the attribute `i` (immutable) or `a` (append only)",
        want="a file or folder that root may change",
        hint=f"`lsattr -d {path}` shows it, `chattr -ia {path}` takes it off; then run the same command again",
    )


def fix(code: CodeName, **values: str) -> str:
    """Return the hint of a code, with values in the place of PATH, URL and ADDRESS."""
    text = CODES[code].fix
    for name, value in values.items():
        text = text.replace(name, value)
    return text
