#!/bin/sh
# Made by `hsm-agent user-data`, 0.1.0: installs hsm-agent on this host and runs `hsm-agent configure`.
# cloud-init runs this once. It installs itself as a unit that runs at each boot, and removes the unit when the host is
# configured. Its log: journalctl -u hsm-agent-first-boot
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
umask 022

state=/var/lib/hsm-agent
self=$state/first-boot
wanted=$self.json
log=$self.log
unit=hsm-agent-first-boot.service
units=/etc/systemd/system
cache=/var/cache/hsm-agent/first-boot
file=$cache/hsm-agent-0.1.0-0123456789ab.tar.gz
# RHEL 8 has only this one by default: too old for the agent, new enough for this script
python=/usr/libexec/platform-python
[ -x "$python" ] || python=/usr/bin/python3
[ -x "$python" ] || python=python3

say() {
    echo "hsm-agent first boot: $*" >&2
    { echo "hsm-agent first boot: $*" >/dev/console; } 2>/dev/null || :
}

# seconds on a monotonic clock
uptime() {
    read -r up _ </proc/uptime
    echo "${up%.*}"
}

# send a report of the agent's form to the report sinks, since there is no agent yet to do it; then exit
fail() {
    # a line may be endless, and an argument may not
    words=$(printf '%s' "$3" | tail -c 4000)
    say "$1: $words"
    timeout 300 "$python" -I - "$wanted" "$1" "$2" "$words" <<'END' || say "no report was sent: $python failed"
import ipaddress, json, os, socket, ssl, stat, subprocess, sys, time, urllib.parse, urllib.request

path, code, status, saw = sys.argv[1:]
now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
run = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-%04x" % (os.getpid() % 65536)
name, machine = socket.gethostname(), os.uname().machine
sentence = "first boot failed before hsm-agent could run"
hint = "`journalctl -u hsm-agent-first-boot` on the host shows more; the next boot tries again"
host = {"name": name, "os": "unknown", "os_version": "", "title": "an unknown system", "arch": machine}
host.update(platform=None, platform_forced=False, instance_id=None)
report = {"schema_version": 1, "run_id": run, "command": "configure", "agent_version": "0.1.0", "host": host}
report.update(client=None, ca=None, steps=[], hsms=[], warnings=[], restart_needed=[])
report.update(outcome="failed", code=code, cause=None, exit_status=int(status), changed=False)
report["failure"] = {"code": code, "sentence": sentence, "saw": saw, "want": "a running agent", "hint": hint}
report.update(started=now, finished=now)
document = json.dumps(report, indent=2) + "\n"


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None  # a report and its token go only to the receiver that was named


def open_directory(folder):
    # follow only links that belong to root: a user could replace others
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for part in folder.split("/"):
        if part in ("", "."):
            continue
        mine = os.fstat(fd).st_uid in (0, os.geteuid())
        link = os.stat(part, dir_fd=fd, follow_symlinks=False)
        follow = part != ".." and mine and stat.S_ISLNK(link.st_mode) and link.st_uid in (0, os.geteuid())
        flags = os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW)
        fd, above = os.open(part, flags, dir_fd=fd), fd
        os.close(above)
    return fd


def write(path):
    folder, _, base = path.rpartition("/")
    fd, draft = open_directory(folder), ".%s.%s" % (base[:100], os.urandom(8).hex())
    try:
        if not stat.S_ISREG(os.stat(base, dir_fd=fd, follow_symlinks=False).st_mode):
            raise OSError("not a regular file")
    except FileNotFoundError:
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(draft, flags, 0o644, dir_fd=fd), "w") as file:
        file.write(document)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, base, src_dir_fd=fd, dst_dir_fd=fd)


def loopback(host):
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def post(uri, options):
    parts = urllib.parse.urlsplit(uri)
    here = loopback(parts.hostname)
    if "@" in parts.netloc or (parts.scheme == "http" and not here):
        raise ValueError("a report needs https, and a token must be in a file")
    headers = {"Content-Type": "application/json", "Idempotency-Key": run + "-" + name}
    if "token_file" in options:
        with open(os.open(options["token_file"], os.O_RDONLY | os.O_NONBLOCK)) as file:
            headers["Authorization"] = "Bearer " + file.read(65536).strip()
    trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=options.get("ca")))
    proxies = urllib.request.ProxyHandler({} if here else None)
    request = urllib.request.Request(uri, document.encode(), headers)
    urllib.request.build_opener(proxies, NoRedirects, trust).open(request, timeout=20).close()


def send(uri, options):
    kind, _, rest = uri.partition(":")
    if kind == "file":
        path = os.fsdecode(urllib.parse.unquote_to_bytes(os.fsencode(rest)))
        write("/" + path[2:].partition("/")[2] if path.startswith("//") else path)
    elif kind in ("https", "http"):
        post(uri, options)
    elif kind == "cfn":
        stack, _, resource = rest.partition("?")[0].rpartition("/")
        words = ["aws", "cloudformation", "signal-resource", "--stack-name", stack, "--logical-resource-id", resource]
        words += ["--unique-id", (code + "." + name + "." + run)[:64], "--status", "FAILURE"]
        subprocess.run(words + ["--region", rest.rpartition("=")[2]], check=True, timeout=60)
    else:
        raise ValueError("only the agent can send reports there")


with open(path) as file:
    options = json.load(file).get("report", {})
for uri in options.get("to", []):
    shown = uri.partition("?")[0]
    for attempt in range(1 if code == "interrupted" else 3):
        try:
            send(uri, options)
            print("reported to " + shown)
            break
        except Exception as error:
            print("no report to %s: %s" % (shown, error.__class__.__name__))
            if not shown.startswith("http"):
                break
            time.sleep(2 * attempt)
END
    exit "$2"
}

# repeat until it works or the time is up; a status from 20 to 29 means that waiting does not help
retry() {
    limit=$(($(uptime) + 600))
    (umask 077 && : >"$log")
    while :; do
        "$@" >"$log" 2>&1
        status=$?
        cat "$log" >&2
        if [ "$status" -eq 0 ] || { [ "$status" -ge 20 ] && [ "$status" -le 29 ]; }; then
            return "$status"
        fi
        [ "$(uptime)" -lt "$limit" ] || return 1
        sleep 3
    done
}

case ${1-} in
go) ;;
done)
    rm -f "$self" "$wanted" "$log" "$units/$unit" "$units/multi-user.target.wants/$unit"
    rm -rf "$cache"
    say "this host is configured"
    exit 0
    ;;
*)
    mkdir -p "$state"
    chmod 711 "$state"
    if [ "$0" != "$self" ]; then
        cp "$0" "$self.new"
        chmod 700 "$self.new"
        mv -f "$self.new" "$self"
    fi
    touch "$self"
    if [ -d /run/systemd/system ]; then
        cat >"$units/$unit" <<'END'
[Unit]
Description=Configure this host for its CloudHSM cluster, at first boot and until it is done
Wants=network-online.target
After=network-online.target
ConditionPathExists=/var/lib/hsm-agent/first-boot

[Service]
Type=oneshot
ExecStart=/bin/sh /var/lib/hsm-agent/first-boot go
ExecStartPost=/bin/sh /var/lib/hsm-agent/first-boot done
EnvironmentFile=-/etc/hsm-agent/environment
# 60: proven but not reported; the next run sends the report. Degraded is not done: the next boot tries again.
SuccessExitStatus=60
TimeoutStartSec=3900
# only the agent gets SIGTERM: a running package manager may finish
KillMode=mixed
TimeoutStopSec=15min

[Install]
WantedBy=multi-user.target
END
        # enabled by a link: `systemctl enable` makes systemd read all its units again
        mkdir -p "$units/multi-user.target.wants"
        ln -sf "../$unit" "$units/multi-user.target.wants/$unit"
        systemctl daemon-reload
        systemctl start "$unit" || {
            say "not configured yet, the next boot tries again: journalctl -u $unit, hsm-agent status"
            exit 1
        }
        exit 0
    fi
    ;;
esac

trap 'fail interrupted 130 "stopped before the agent was there"' TERM INT HUP
(
    umask 077
    cat >"$wanted" <<'END'
{"hsm": {"ip": ["10.0.1.6"]}}
END
)

# at a later boot: keep what was configured by hand since then
if [ -n "$(find "$state/desired.json" -newer "$self" 2>/dev/null)" ]; then
    hsm-agent status >/dev/null 2>&1
    case $? in
    0 | 60) exit 0 ;;
    41) exec hsm-agent configure --timeout 1800s ;;
    esac
fi

fetch() {
    mkdir -p "$cache"
    timeout 600 "$python" -I - "$file" 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e <<'END'
import hashlib, http.client, os, subprocess, sys, urllib.error, urllib.request

url = 'https://bucket.s3.eu-central-1.amazonaws.com/hsm-agent-0.1.0-0123456789ab.tar.gz'  # not an argument: every user can read those of a process
path, wanted = sys.argv[1:]
most = 64 * 1024 * 1024
shown = url.partition("?")[0]


def digest():
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(65536), b""):
            found.update(piece)
    return found.hexdigest()


if not (os.path.exists(path) and digest() == wanted):
    try:
        if url.startswith("s3:"):
            subprocess.run(["aws", "s3", "cp", "--only-show-errors", url, path], check=True, timeout=300)
        else:
            with urllib.request.urlopen(url, timeout=20) as answer, open(path, "wb") as file:
                file.write(answer.read(most))
            length = answer.headers.get("Content-Length")
            if length is not None and os.path.getsize(path) != min(int(length), most):
                raise OSError("cut short at %d of %s bytes" % (os.path.getsize(path), length))
    except urllib.error.HTTPError as error:
        print("%s: HTTP %d" % (shown, error.code))
        sys.exit(22 if error.code in (400, 401, 403, 404, 410) else 1)
    except (OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError) as error:
        reason = getattr(error, "reason", error)  # the text of other errors may contain the URL with its query
        print("%s: %s" % (shown, reason if isinstance(reason, OSError) else error.__class__.__name__))
        sys.exit(1)
    if digest() != wanted:
        print("%s: its SHA-256 is %s, wanted %s" % (shown, digest(), wanted))
        os.remove(path)
        sys.exit(21)
END
}

install_agent() {
    rm -rf /opt/hsm-agent.new
    mkdir -p /opt/hsm-agent.new
    tar -xzf "$file" -C /opt/hsm-agent.new --strip-components=1 || return 22
    rm -rf /opt/hsm-agent
    mv /opt/hsm-agent.new /opt/hsm-agent
    mkdir -p /usr/local/bin
    ln -sf /opt/hsm-agent/hsm-agent /usr/local/bin/hsm-agent
}

retry fetch || case $? in
21) fail checksum-mismatch 21 "$(tail -n 3 "$log")" ;;
22) fail package-not-found 20 "$(tail -n 3 "$log")" ;;
*) fail download-failed 20 "$(tail -n 3 "$log")" ;;
esac
retry install_agent || case $? in
20) fail package-not-found 20 "$(tail -n 1 "$log")" ;;
*) fail package-failed 22 "$(tail -n 5 "$log")" ;;
esac
hsm-agent --version >"$log" 2>&1 || fail package-failed 22 "the agent does not start: $(tail -n 3 "$log")"

trap - TERM INT HUP
exec hsm-agent configure --config "$wanted" --timeout 1800s
