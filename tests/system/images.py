"""Builds the root filesystems of the lab's hosts, as layers that overlayfs stacks, and keeps them between runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .kernel import LabError, tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CACHE = Path("/var/cache/hsm-agent-lab")
HERE = Path(__file__).resolve().parent


def _tools() -> dict[str, str]:
    """The programs that tests call on the machine they run on, and the Debian package that brings each."""
    lines = (HERE.parents[1] / "packaging" / "tools.txt").read_text().splitlines()
    return {
        program: package
        for program, package, _ in (line.split() for line in lines if line[:1] not in ("", "#"))
    }


# `packaging/bootstrap test` alone installs a server, with what keeps it from being started, and a browser
_NOT_OURS = ("sshd", "chromium", "chromedriver")


# What a freshly launched EC2 instance has in any case. Systemd is on every disk, but pid 1 only in `+systemd` hosts.
PACKAGES = [
    *("python3", "openssl", "ca-certificates", "iproute2", "procps", "sudo", "openssh-server", "netbase"),
    *("faketime", "systemd", "systemd-sysv", "dbus"),
]

TRIM = [
    "--dpkgopt=force-unsafe-io",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    '--aptopt=Acquire::Languages "none"',
]

SETTLE = r"""
rm -f /etc/ssh/ssh_host_* /etc/machine-id /etc/hostname
printf 'nameserver 10.77.0.1\noptions timeout:1 attempts:1\n' >/etc/resolv.conf
useradd -m -s /bin/bash -p '*' ec2-user   # no password, yet not locked: sshd without PAM refuses "!"
echo 'ec2-user ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-ec2-user
printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'PermitRootLogin prohibit-password' 'PasswordAuthentication no' \
    'UsePAM no' 'UseDNS no' 'MaxStartups 200:30:400' 'MaxSessions 100' 'PrintMotd no' \
    'Subsystem sftp /usr/lib/openssh/sftp-server' >/etc/ssh/sshd_config
for unit in apt-daily.timer apt-daily-upgrade.timer systemd-modules-load.service systemd-udevd.service; do
    ln -sfn /dev/null /etc/systemd/system/$unit
done
systemctl enable ssh.service
"""

RPM_TOOLS = """
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends rpm dnf
apt-get clean
rm -rf /var/lib/apt/lists/*
"""

# Debian's cloud-init, which looks for a seed on the disk alone: nobody in the lab answers for a cloud. The network is
# the lab's, and made before pid 1.
CLOUD_INIT = """
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends cloud-init
apt-get clean
rm -rf /var/lib/apt/lists/*
echo 'datasource_list: [NoCloud, None]' >/etc/cloud/cloud.cfg.d/90_lab.cfg
echo 'network: {config: disabled}' >>/etc/cloud/cloud.cfg.d/90_lab.cfg
"""

# As Red Hat configures it, without the modules that call apt. The host's name is there before it asks for it.
CLOUD_INIT_RPM = (
    CLOUD_INIT
    + """
echo 'system_info: {distro: rhel}' >>/etc/cloud/cloud.cfg.d/90_lab.cfg
echo 'preserve_hostname: true' >>/etc/cloud/cloud.cfg.d/90_lab.cfg
echo 'ssh: {emit_keys_to_console: false}' >>/etc/cloud/cloud.cfg.d/90_lab.cfg
echo 'cloud_config_modules: [locale, set-passwords, timezone, runcmd]' >>/etc/cloud/cloud.cfg.d/90_lab.cfg
"""
)

# Debian with dnf and rpm over a database of their own, which says in every place an agent may look that it is another
# distribution. The made-up system-release package provides what the real one's own packages would.
RPM_DISTRO = r"""
mkdir -p /etc/rpm /etc/yum.repos.d /tmp/sr
echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros
rm -f /etc/os-release /usr/lib/os-release /etc/debian_version
cat >/tmp/sr/os-release <<'EOS'
{os_release}EOS
echo '{release}' >/tmp/sr/system-release
cat >/tmp/sr/system-release.spec <<'EOS'
Name: system-release
Version: {version}
Release: 1.{suffix}
Summary: stands in for the packages of the base system
License: test
BuildArch: noarch
AutoReqProv: no
Provides: system-release(releasever) = {major}
Provides: glibc = {glibc}, glibc(x86-64) = {glibc}, bash, coreutils, systemd = 252, systemd-libs, shadow-utils
Provides: openssl, openssl-libs, ca-certificates, dnf, rpm, python3, sudo, /bin/sh, /bin/bash, /usr/bin/env
Provides: libc.so.6()(64bit), libc.so.6(GLIBC_2.2.5)(64bit), libc.so.6(GLIBC_2.17)(64bit)
Provides: libc.so.6(GLIBC_2.28)(64bit), libm.so.6()(64bit), libpthread.so.0()(64bit), libdl.so.2()(64bit)
Provides: libgcc_s.so.1()(64bit), rtld(GNU_HASH)
%description
stands in
%install
mkdir -p %{{buildroot}}/etc
cp /tmp/sr/os-release /tmp/sr/system-release %{{buildroot}}/etc/
ln -s system-release %{{buildroot}}/etc/{release_name}-release
%files
/etc/os-release
/etc/system-release
/etc/{release_name}-release
EOS
rpmbuild -bb --quiet --define '_topdir /tmp/sr' /tmp/sr/system-release.spec
rpm -U /tmp/sr/RPMS/noarch/*.rpm 2>/dev/null
rm -rf /tmp/sr
ln -sf ../../etc/os-release /usr/lib/os-release
ln -sf dnf-3 /usr/bin/yum
rm -f /usr/bin/apt /usr/bin/apt-* /usr/bin/dpkg /usr/bin/dpkg-*
rm -rf /var/lib/dpkg /etc/apt /etc/dpkg
"""

OS_RELEASE = "rm -f /etc/os-release /usr/lib/os-release\ncat >/etc/os-release <<'EOS'\n{os_release}EOS\n"


def _archive() -> list[str]:
    """The Debian archive this machine's own apt uses; none on another system, and mmdebstrap takes its own then."""
    told = tool(["apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages"])
    return sorted(line.partition("|")[2] for line in told.splitlines() if line.startswith("Debian|"))[:1]


@dataclass(frozen=True)
class Layer:
    """One folder of files, made by a script in a root of the layers beneath it, or by mmdebstrap if there are none."""

    name: str
    script: str
    below: Layer | None = None
    suite: str = ""

    @property
    def key(self) -> str:
        recipe = [
            self.name,
            self.script,
            self.suite,
            *PACKAGES,
            *TRIM,
            self.below.key if self.below else "",
        ]
        return hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]

    @property
    def path(self) -> Path:
        return CACHE / "layers" / f"{self.name}-{self.key}"

    @property
    def stack(self) -> tuple[Layer, ...]:
        """This layer and those beneath it, topmost first, as overlayfs wants them."""
        return (self, *self.below.stack) if self.below else (self,)


@dataclass(frozen=True)
class Image:
    """One kind of host."""

    name: str
    os_id: str
    os_version: str
    family: str
    python: str
    layer: Layer

    @property
    def lowers(self) -> tuple[Path, ...]:
        return tuple(layer.path for layer in self.layer.stack)


BULLSEYE, BOOKWORM, TRIXIE = (
    Layer(suite, SETTLE, suite=suite) for suite in ("bullseye", "bookworm", "trixie")
)
BOOKWORM_RPM = Layer("bookworm-rpm", RPM_TOOLS, BOOKWORM)
BOOKWORM_RPM_CLOUD = Layer("bookworm-rpm-cloud", CLOUD_INIT_RPM, BOOKWORM_RPM)


def _ubuntu(version: str, codename: str, base: Layer, python: str) -> Image:
    os_release = (
        f'PRETTY_NAME="Ubuntu {version} LTS"\nNAME="Ubuntu"\nVERSION_ID="{version}"\n'
        f"VERSION_CODENAME={codename}\nID=ubuntu\nID_LIKE=debian\n"
    )
    name = f"ubuntu{version}"
    layer = Layer(name, OS_RELEASE.format(os_release=os_release), base)
    return Image(name, "ubuntu", version, "deb", python, layer)


def _rpm_image(
    name: str,
    title: str,
    *,
    os_id: str,
    version: str,
    full: str,
    suffix: str,
    glibc: str,
    below: Layer = BOOKWORM_RPM,
) -> Image:
    platform = {"amzn": "al2023"}.get(os_id, suffix)
    os_release = (
        f'NAME="{title}"\nVERSION="{version}"\nID="{os_id}"\nID_LIKE="fedora"\nVERSION_ID="{version}"\n'
        f'PLATFORM_ID="platform:{platform}"\nPRETTY_NAME="{title} {full}"\n'
    )
    script = RPM_DISTRO.format(
        os_release=os_release,
        release=f"{title} release {full}",
        version=full.partition(" ")[0],
        major=version.partition(".")[0],
        suffix=suffix,
        glibc=glibc,
        release_name={"amzn": "amazon-linux"}.get(os_id, "redhat"),
    )
    return Image(name, os_id, version, "rpm", "3.11", Layer(name, script, below))


_RHEL = "Red Hat Enterprise Linux"
_IMAGES = (
    Image("bullseye", "debian", "11", "deb", "3.9", BULLSEYE),
    _ubuntu("22.04", "jammy", BOOKWORM, "3.11"),
    _ubuntu("24.04", "noble", TRIXIE, "3.13"),
    _rpm_image(
        "amzn2023",
        "Amazon Linux",
        os_id="amzn",
        version="2023",
        full="2023.6.20241212",
        suffix="amzn2023",
        glibc="2.34",
    ),
    _rpm_image("rhel8", _RHEL, os_id="rhel", version="8.10", full="8.10 (Ootpa)", suffix="el8", glibc="2.28"),
    _rpm_image("rhel9", _RHEL, os_id="rhel", version="9.4", full="9.4 (Plow)", suffix="el9", glibc="2.34"),
    _rpm_image(
        "rhel10",
        _RHEL,
        os_id="rhel",
        version="10.0",
        full="10.0 (Coughlan)",
        suffix="el10",
        glibc="2.39",
    ),
)
_CLOUD = "-cloud"
_WITH_CLOUD_INIT = (
    replace(
        _IMAGES[2],
        name=f"{_IMAGES[2].name}{_CLOUD}",
        layer=Layer(f"{_IMAGES[2].name}{_CLOUD}", CLOUD_INIT, _IMAGES[2].layer),
    ),
    _rpm_image(
        f"rhel9{_CLOUD}",
        _RHEL,
        os_id="rhel",
        version="9.4",
        full="9.4 (Plow)",
        suffix="el9",
        glibc="2.34",
        below=BOOKWORM_RPM_CLOUD,
    ),
)
NAMES = tuple(image.name for image in _IMAGES)
IMAGES = {image.name: image for image in (*_IMAGES, *_WITH_CLOUD_INIT)}
SYSTEMD = "+systemd"


def image(name: str) -> Image:
    """The image of a name such as `rhel8` or `rhel8+systemd`; the two share every file and differ in their pid 1."""
    bare = name.removesuffix(SYSTEMD)
    if bare not in IMAGES:
        message = f"no image {name!r}: there are {', '.join(IMAGES)}, each also as NAME{SYSTEMD}"
        raise LabError(message)
    return IMAGES[bare]


def install_tools() -> list[str]:
    """Installs what is missing of the lab's tools on a machine with apt; needs root. Returns what it installed."""
    if not _missing_tools():
        return []
    with only_one_builder():  # another worker of this run may be at it
        missing = _missing_tools()
        if missing:
            if shutil.which("apt-get") is None:
                message = f"the lab needs {', '.join(missing)}, and there is no apt-get to install them with"
                raise LabError(message)
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            wait = ["-o", "DPkg::Lock::Timeout=300"]
            tool(["apt-get", "-qq", "update"], env=env)
            tool(["apt-get", "-qq", *wait, "install", "-y", "--no-install-recommends", *missing], env=env)
    return missing


def _missing_tools() -> list[str]:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return sorted(
        {
            package
            for name, package in _tools().items()
            if name not in _NOT_OURS and shutil.which(name, path=path) is None
        }
    )


@contextmanager
def only_one_builder() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def overlay_options(lowers: Sequence[Path], upper: Path, work: Path) -> str:
    """The options under which a folder written as the upper one may later be stacked as a lower one."""
    stack = ":".join(str(lower) for lower in lowers)
    return f"lowerdir={stack},upperdir={upper},workdir={work},index=off,metacopy=off,redirect_dir=off"


def run_over(lowers: Sequence[Path], upper: Path, script: str) -> None:
    """Runs a shell script as root of a stack of layers; what it changes stays in the folder `upper`."""
    work = upper.with_name(f"{upper.name}.work")
    top = upper.with_name(f"{upper.name}.root")
    for folder in (upper, work, top):
        folder.mkdir(parents=True, exist_ok=True)
    # The root's own mode and owner come from the topmost layer.
    upper.chmod(0o755)
    outer = (
        'mount -t overlay lab-build -o "$1" "$2"; cd "$2"; mount -t proc proc proc; mount --bind /dev dev\n'
        'mount --bind /etc/resolv.conf etc/resolv.conf; chroot . sh -ec "$3"'
    )
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C",
    }
    options = overlay_options(lowers, upper, work)
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", outer, "lab"]
    try:
        tool([*enter, options, str(top), script], env=environment)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        top.rmdir()


def finished(folder: Path) -> bool:
    """A folder gets its name only when it is complete."""
    return folder.is_dir()


def build(layer: Layer) -> float:
    """Makes one layer under another name and renames it at the end, so that a half-built one is never used."""
    started = time.monotonic()
    draft = layer.path.with_name(f"{layer.path.name}.tmp")
    shutil.rmtree(draft, ignore_errors=True)
    if layer.below is None:
        # An overlay over mmdebstrap's result would only cost; the script runs in it as mmdebstrap's last hook.
        hook = '--customize-hook=chroot "$1" sh -ec "$LAB_SCRIPT"'
        options = [
            "--quiet",
            "--mode=root",
            "--variant=minbase",
            *TRIM,
            f"--include={','.join(PACKAGES)}",
            hook,
        ]
        environment = {**os.environ, "LAB_SCRIPT": layer.script}
        tool(["mmdebstrap", *options, layer.suite, str(draft), *_archive()], env=environment)
    else:
        run_over([below.path for below in layer.below.stack], draft, layer.script)
    draft.rename(layer.path)
    return time.monotonic() - started


def ensure(names: Sequence[str] = NAMES) -> dict[str, float]:
    """Builds what is missing of the named images, the Debian suites side by side; returns seconds by layer."""
    wanted = {layer: None for name in names for layer in reversed(image(name).layer.stack)}
    if all(finished(layer.path) for layer in wanted):
        return {}
    with only_one_builder():
        missing = [layer for layer in wanted if not finished(layer.path)]

        def chain(suite: str) -> dict[str, float]:
            return {layer.name: build(layer) for layer in missing if layer.stack[-1].suite == suite}

        (CACHE / "layers").mkdir(exist_ok=True)
        # The longest chain first, on as many threads as there are suites: downloads overlap unpacking.
        suites = sorted({layer.stack[-1].suite for layer in missing}, key=lambda suite: suite != "bookworm")
        with ThreadPoolExecutor(max_workers=3) as pool:
            seconds = [pool.submit(chain, suite) for suite in suites]
        return {name: taken for future in seconds for name, taken in future.result().items()}


def reason_not_to_run() -> str | None:
    """Why this machine cannot have the lab, or None if it can."""
    if not Path("/proc/self/ns/net").exists():
        return "the lab needs Linux: there is no /proc/self/ns here"
    if os.geteuid() != 0:
        return "the lab needs root, to make namespaces and mounts"
    if shutil.which("unshare") is None:
        return "the lab needs unshare, from util-linux"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        return f"the lab needs namespaces, and this kernel gives none: {tried.stderr.strip()}"
    return None
