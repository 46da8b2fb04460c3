import hashlib, http.client, os, subprocess, sys, urllib.error, urllib.request
{% if network.proxy %}
import ipaddress, urllib.parse
{% endif %}

url = '{{ source.url }}'  # not an argument: every user can read those of a process
path, wanted = sys.argv[1:]
most = 64 * 1024 * 1024
shown = url.partition("?")[0]


def digest():
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(65536), b""):
            found.update(piece)
    return found.hexdigest()


{% if network.proxy %}
{% include "user-data/direct.py" %}


{% endif %}
if not (os.path.exists(path) and digest() == wanted):
    try:
        if url.startswith("s3:"):
            subprocess.run(["aws", "s3", "cp", "--only-show-errors", url, path], check=True, timeout=300)
        else:
{% if network.proxy %}
            if direct(urllib.parse.urlsplit(url).hostname):
                urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))
{% endif %}
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
