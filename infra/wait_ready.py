"""Proves that an endpoint is ready and serves what was sent; clouds report success earlier, or over an old version.

`pulumi up` runs this file's text with `python3 -c` (infra/readiness.py), so it uses the standard library alone. It
reads URL, the endpoint's root; TIMEOUT_S; MODEL_SHA256 and GIT_SHA, as /version has to report them; and perhaps
  API_TOKEN       for an endpoint whose status is closed (cloudtrial:protectStatus)
  IDENTITY_TOKEN  "gcloud": Google lets in invited callers alone, and gcloud has the caller's token
  ADDRESS_FILE    a file with the address to connect to, where URL's name does not lead there yet
  ADVICE          what to do when it fails
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

POLL_S = float(os.environ.get("POLL_S") or "5")
SUCCESSES_NEEDED = 3  # in a row: the address may still lead to the version before
MAX_ANSWER_BYTES = 64 * 1024
UNINVITED = "status 403"


def main(env: Mapping[str, str]) -> None:
    url, timeout_s = env["URL"].rstrip("/"), float(env["TIMEOUT_S"])
    print(f"waiting until {url} is ready and reports {env['GIT_SHA']}", flush=True)
    deadline = time.monotonic() + timeout_s
    successes, last = 0, ""
    while successes < SUCCESSES_NEEDED:
        found = problem(url, env)
        successes = successes + 1 if found == "" else 0
        if found and found != last:
            print(f"not yet: {found}", flush=True)
        last = found or last
        if found and time.monotonic() > deadline:
            if env.get("IDENTITY_TOKEN") and UNINVITED in found:
                print("NOT PROVEN: cloudtrial:invoker does not let you in; Google itself found it ready", flush=True)
                return
            sys.exit(f"{url} was not ready within {timeout_s:.0f} s; last: {found}\n{env.get('ADVICE', '')}")
        time.sleep(POLL_S)
    print("ready, with the model and the code that were sent", flush=True)


def problem(url: str, env: Mapping[str, str]) -> str:
    """Returns what is wrong with the endpoint; "" when nothing is."""
    try:
        headers = caller_headers(env)
        ask(f"{url}/readyz", headers, env)
        version = json.loads(ask(f"{url}/version", headers, env))
        reported = {"model": version["model"]["sha256"], "git_sha": version["git_sha"]}
    except (OSError, ValueError, KeyError, TypeError) as error:  # urllib's own errors are OSErrors
        return str(error) if not isinstance(error, KeyError | TypeError) else f"/version has no {error}"
    for name, sent in (("model", env["MODEL_SHA256"]), ("git_sha", env["GIT_SHA"])):
        if reported[name] != sent:
            return f"/version reports {name} {reported[name]}, and {sent} was sent: another version answers"
    return ""


def ask(url: str, headers: Mapping[str, str], env: Mapping[str, str]) -> bytes:
    """The body of a good answer. Raises OSError for any other, and for none."""
    host = urlsplit(url).netloc
    if file := env.get("ADDRESS_FILE"):
        with open(file, encoding="utf-8") as content:
            url, headers = url.replace(host, content.read().strip(), 1), {**headers, "Host": host}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=10) as response:
            return response.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        raise OSError(f"{urlsplit(url).path} answered status {error.code}") from None


def caller_headers(env: Mapping[str, str]) -> dict[str, str]:
    """Who asks. Raises OSError when gcloud, which is needed, has no token."""
    headers = {"Authorization": f"Bearer {env['API_TOKEN']}"} if env.get("API_TOKEN") else {}
    if env.get("IDENTITY_TOKEN"):
        command = ["gcloud", "auth", "print-identity-token"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
        if done.returncode:
            raise OSError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
        headers["X-Serverless-Authorization"] = f"Bearer {done.stdout.strip()}"
    return headers


main(os.environ)
