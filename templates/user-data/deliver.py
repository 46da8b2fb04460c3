import ipaddress, json, os, socket, ssl, stat, subprocess, sys, time, urllib.parse, urllib.request

path, code, status, saw = sys.argv[1:]
now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
run = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-%04x" % (os.getpid() % 65536)
name, machine = socket.gethostname(), os.uname().machine
sentence = "first boot failed before hsm-agent could run"
hint = "`journalctl -u hsm-agent-first-boot` on the host shows more; the next boot tries again"
host = {"name": name, "os": "unknown", "os_version": "", "title": "an unknown system", "arch": machine}
host.update(platform=None, platform_forced=False, instance_id=None)
report = {"schema_version": 1, "run_id": run, "command": "configure", "agent_version": "{{ version }}", "host": host}
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


{% if network.proxy %}
{% include "user-data/direct.py" %}


{% endif %}
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
    proxies = urllib.request.ProxyHandler({} if here{{ " or direct(parts.hostname)" if network.proxy }} else None)
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
