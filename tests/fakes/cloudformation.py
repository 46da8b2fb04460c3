"""`python -m tests.fakes.cloudformation IP PORT FILE`: takes SignalResource of a role, each as a line of JSON in FILE."""

from __future__ import annotations

import http.server
import json
import sys
from pathlib import Path
from urllib.parse import parse_qsl

from tests.fakes.imds import CREDENTIALS


class Exchange(http.server.BaseHTTPRequestHandler):
    """One request; who does not sign as the role is refused, as AWS does."""

    def do_POST(self) -> None:
        form = dict(
            parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode(), strict_parsing=True)
        )
        signs = self.headers.get("Authorization", "").startswith(
            f"AWS4-HMAC-SHA256 Credential={CREDENTIALS['AccessKeyId']}/"
        )
        token = self.headers.get("X-Amz-Security-Token") == CREDENTIALS["Token"]
        if signs and token and form.get("Action") == "SignalResource":
            with Path(sys.argv[3]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(form) + "\n")
            self.send_response(200)
            body = b"<SignalResourceResponse><ResponseMetadata/></SignalResourceResponse>"
        else:
            self.send_response(403)
            body = b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Exchange).serve_forever()
