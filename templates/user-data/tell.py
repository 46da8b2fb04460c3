import json, os, socket, ssl, subprocess, sys, time, urllib.request

path, code, status, saw = sys.argv[1:]
now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
run = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-%04x" % (os.getpid() % 65536)
name, machine = socket.gethostname(), os.uname().machine
sentence = "first boot failed before hsm-agent could run"
hint = "`journalctl -u hsm-agent-first-boot` on the host says more; the next boot tries again"
host = {"name": name, "os": "unknown", "os_version": "", "title": "an unknown system", "arch": machine}
host.update(platform=None, platform_forced=False, instance_id=None)
report = {"schema_version": 1, "run_id": run, "command": "configure", "agent_version": "{{ version }}", "host": host}
report.update(client=None, ca=None, steps=[], hsms=[], warnings=[], restart_needed=[])
report.update(outcome="failed", code=code, cause=None, exit_status=int(status), changed=False)
report["failure"] = {"code": code, "sentence": sentence, "saw": saw, "want": "a running agent", "hint": hint}
report.update(started=now, finished=now)
document = json.dumps(report, indent=2) + "\n"


def send(uri, places):
    kind, _, rest = uri.partition(":")
    if kind == "file":
        with open(rest + ".new", "w") as file:
            file.write(document)
        os.rename(rest + ".new", rest)
    elif kind in ("https", "http"):
        headers = {"Content-Type": "application/json", "Idempotency-Key": run + "-" + name}
        if "token_file" in places:
            with open(places["token_file"]) as file:
                headers["Authorization"] = "Bearer " + file.read().strip()
        trust = ssl.create_default_context(cafile=places.get("ca"))
        request = urllib.request.Request(uri, document.encode(), headers)
        urllib.request.urlopen(request, timeout=20, context=trust).close()
    elif kind == "cfn":
        stack, _, resource = rest.partition("?")[0].rpartition("/")
        words = ["aws", "cloudformation", "signal-resource", "--stack-name", stack, "--logical-resource-id", resource]
        words += ["--unique-id", (code + "." + name + "." + run)[:64], "--status", "FAILURE"]
        subprocess.run(words + ["--region", rest.rpartition("=")[2]], check=True, timeout=60)
    else:
        raise ValueError("only the agent itself can write there")


with open(path) as file:
    places = json.load(file).get("report", {})
for uri in places.get("to", []):
    shown = uri.partition("?")[0]
    for attempt in range(1 if code == "interrupted" else 3):
        try:
            send(uri, places)
            print("told " + shown)
            break
        except Exception as error:
            print("%s was not told: %s" % (shown, error.__class__.__name__))
            if not shown.startswith("http"):
                break
            time.sleep(2 * attempt)
