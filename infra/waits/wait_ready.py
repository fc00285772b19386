"""Proves that an endpoint is ready and serves what was sent; clouds report success earlier, or over an old version.

`pulumi up` runs this file's text with `python3 -c` (infra/readiness.py), so it uses the standard library alone, and
infra/waits/polling.py, whose text stands in place of its import there. It reads URL, the endpoint's root; TIMEOUT_S;
MODEL_SHA256 and GIT_SHA, as /version has to report them; and perhaps
  API_TOKEN       for an endpoint whose status is closed (cloudtrial:protectStatus)
  IDENTITY_TOKEN  "gcloud": Google lets in invited callers alone, and gcloud has the caller's token
  ADDRESS_FILE    a file with the address to connect to, where URL's name does not lead there yet; for https, what can
                  be proven before it does
  CREATED_REVISION, READY_REVISION  Google's newest one, and the newest that got ready, which it serves
  ADVICE          what to do when it fails
"""

import functools
import json
import os
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from infra.waits.polling import NoRedirect, output_of, wait

HTTPS_WAIT_S = float(os.environ.get("HTTPS_WAIT_S") or "120")  # to fetch the certificate that a VM before has kept
MAX_ANSWER_BYTES = 64 * 1024
UNINVITED = "status 403"
NO_IDENTITY = "No identity token can be obtained"  # gcloud's words where a pipeline is federated, as on GitHub


def main(env: Mapping[str, str]) -> None:
    url, timeout_s = env["URL"].rstrip("/"), float(env["TIMEOUT_S"])
    print(f"waiting until {url} is ready and reports {env['GIT_SHA']}", flush=True)
    created, ready = env.get("CREATED_REVISION"), env.get("READY_REVISION")
    if created != ready:
        sys.exit(f"{created} did not get ready; {ready or 'none'} still serves\n{env.get('ADVICE', '')}")
    try:
        caller_headers(env)
    except OSError as error:
        if NO_IDENTITY in str(error):
            print("NOT PROVEN: these credentials give no identity token; Google itself found it ready", flush=True)
            return
        sys.exit(f"cloudtrial:invoker lets in those with an identity token alone, and there is none: {error}")
    if "PULUMI_COMMAND_STDOUT" in env:  # of a run before, which succeeded: this script is new, the VM is not
        env = {**env, "ADDRESS_FILE": ""}
    if env.get("ADDRESS_FILE") and url.startswith("https:"):
        found = prove_before_the_name_leads_here(url, timeout_s, env)
    else:
        found = wait(lambda: problem(url, env), timeout_s)
        if found and env.get("IDENTITY_TOKEN") and UNINVITED in found:
            print("NOT PROVEN: cloudtrial:invoker does not let you in; Google itself found it ready", flush=True)
            return
        if found == "":
            print("ready, with the model and the code that were sent", flush=True)
    if found:
        sys.exit(f"{url} was not ready within {timeout_s:.0f} s; last: {found}\n{env.get('ADVICE', '')}")


def prove_before_the_name_leads_here(url: str, timeout_s: float, env: Mapping[str, str]) -> str:
    """What a VM can prove whose domain leads elsewhere: ready on port 80, then over HTTPS. Returns what is wrong.

    The first VM of a domain gets its certificate only once the domain leads there: that is no fault. Where HTTPS works
    now, the VM before has kept its certificate, and this one has to serve it before it takes the address.
    """
    if found := wait(lambda: unready(url.replace("https:", "http:", 1), env), timeout_s):
        return f"on port 80: {found}"
    print("ready on port 80; now over HTTPS", flush=True)
    found = wait(lambda: problem(url, env), HTTPS_WAIT_S)
    if not found:
        print("ready over HTTPS, with the model and the code that were sent", flush=True)
    elif unready(url, {**env, "ADDRESS_FILE": ""}):
        print(f"NOT PROVEN before the address leads to this VM: HTTPS, model and code; {found}", flush=True)
        print("(the first VM of a domain gets its certificate only then)", flush=True)
        return ""
    return f"over HTTPS, which works on the VM before: {found}" if found else ""


def problem(url: str, env: Mapping[str, str]) -> str:
    """Returns what is wrong with the endpoint; "" when nothing is."""
    try:
        headers = caller_headers(env)
        ask(f"{url}/readyz", headers, env)
        version = json.loads(ask(f"{url}/version", headers, env))
        reported = {"model": version["model"]["sha256"], "git_sha": version["git_sha"]}
    except (OSError, ValueError, KeyError, TypeError) as error:  # urllib's own errors are OSErrors
        return str(error) if not isinstance(error, (KeyError, TypeError)) else f"/version has no {error}"
    for name, sent in (("model", env["MODEL_SHA256"]), ("git_sha", env["GIT_SHA"])):
        if reported[name] != sent:
            return f"/version reports {name} {reported[name]}, and {sent} was sent: another version answers"
    return ""


def unready(url: str, env: Mapping[str, str]) -> str:
    """Returns why it is not ready, whatever it serves; "" when it is."""
    try:
        ask(f"{url}/readyz", {}, env)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


class NamesContext(ssl.SSLContext):
    """TLS with the server of a name, at whatever address: the name is asked for, and its certificate verified."""

    name = ""

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **{**options, "server_hostname": self.name})


def ask(url: str, headers: Mapping[str, str], env: Mapping[str, str]) -> bytes:
    """The body of a good answer. Raises OSError for any other, and for none."""
    host, context = urlsplit(url).netloc, NamesContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    context.name = urlsplit(url).hostname or ""
    if file := env.get("ADDRESS_FILE"):
        with open(file, encoding="utf-8") as content:
            url, headers = url.replace(host, content.read().strip(), 1), {**headers, "Host": host}
    request = urllib.request.Request(url, headers=dict(headers))
    opener = urllib.request.build_opener(NoRedirect, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=10) as response:
            return response.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        led_on = f", and leads on to {error.headers['Location']}" if error.headers["Location"] else ""
        raise OSError(f"{urlsplit(url).path} answered status {error.code}{led_on}") from None


def caller_headers(env: Mapping[str, str]) -> dict[str, str]:
    """Who asks. Raises OSError when gcloud, which is needed, has no token."""
    headers = {"Authorization": f"Bearer {env['API_TOKEN']}"} if env.get("API_TOKEN") else {}
    if env.get("IDENTITY_TOKEN"):
        headers["X-Serverless-Authorization"] = f"Bearer {identity_token()}"
    return headers


@functools.cache  # it is valid for an hour
def identity_token() -> str:
    command = ["gcloud", "auth", "print-identity-token"]
    if shutil.which("gcloud") is None:
        raise OSError("gcloud is not installed (https://cloud.google.com/sdk/docs/install); then run `up` again")
    return output_of(command)


main(os.environ)
