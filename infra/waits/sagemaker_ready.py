"""Proves by signed calls that a SageMaker endpoint serves what was sent; nothing else of it can be asked.

`pulumi up` runs this file's text with `python3 -c` (infra/readiness.py), so it signs with the standard library alone
(AWS's signature, version 4), and uses infra/waits/polling.py, whose text stands in place of its import there. It reads
URL, where endpoints are invoked; API_URL, where they are described; REGION; ENDPOINT and CONFIG, its name and that of
the configuration that it has to have, which names image, model and commit; MODEL_SHA256; CONTENT_TYPE and BODY, in
base64, of a request that the model can answer; TIMEOUT_S; and perhaps
  PROFILE  the stack's aws:profile
  ADVICE   what to do when it fails
Credentials are those of the environment, or else those that AWS's own CLI finds.
"""

import base64
import datetime
import functools
import hashlib
import hmac
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from infra.waits.polling import NoRedirect, output_of, wait

ANSWER_TIMEOUT_S = 60  # SageMaker's own; the first answer of a serverless endpoint waits for a start
MAX_ANSWER_BYTES = 64 * 1024
VERSION_DIGITS = 12  # of the model's sha256, in answers
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
GET_CREDENTIALS = ["aws", "configure", "export-credentials", "--format", "process"]


def main(env: Mapping[str, str]) -> None:
    timeout_s = float(env["TIMEOUT_S"])
    print(f"waiting until {env['ENDPOINT']} serves by {env['CONFIG']}", flush=True)
    try:
        credentials(env.get("PROFILE", ""))
    except OSError as error:
        sys.exit(f"SageMaker answers to signed calls alone, and there is nothing to sign with: {error}")
    if found := wait(lambda: problem(env), timeout_s):
        sys.exit(f"{env['ENDPOINT']} was not ready within {timeout_s:.0f} s; last: {found}\n{env.get('ADVICE', '')}")
    print("ready, with the model and the code that were sent", flush=True)


def problem(env: Mapping[str, str]) -> str:
    """Returns what is wrong with the endpoint; "" when nothing is. An update that failed has left the old version."""
    try:
        described, _ = describe(env)
        state = json.loads(described)
        if state["EndpointStatus"] != "InService":
            return f"it is {state['EndpointStatus']}: {state.get('FailureReason', 'no reason is given')}"
        if state["EndpointConfigName"] != env["CONFIG"]:
            reason = state.get("FailureReason", "no reason is given")
            return f"it serves by {state['EndpointConfigName']}, and {env['CONFIG']} was sent: {reason}"
        _, headers = invoke(env)
    except (OSError, ValueError, KeyError, TypeError) as error:  # urllib's own errors are OSErrors
        return str(error) if not isinstance(error, (KeyError, TypeError)) else f"DescribeEndpoint says no {error}"
    version = parse_qs(headers.get(ATTRIBUTES) or "").get("model_version", ["none"])[0]
    sent = env["MODEL_SHA256"][:VERSION_DIGITS]
    return "" if version == sent else f"an answer is of model {version}, and {sent} was sent: another version answers"


def describe(env: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
    body = json.dumps({"EndpointName": env["ENDPOINT"]}).encode()
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "SageMaker.DescribeEndpoint"}
    return post(f"{env['API_URL']}/", body, headers, env)


def invoke(env: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
    url = f"{env['URL']}/endpoints/{env['ENDPOINT']}/invocations"
    return post(url, base64.b64decode(env["BODY"]), {"Content-Type": env["CONTENT_TYPE"]}, env)


def post(url: str, body: bytes, headers: Mapping[str, str], env: Mapping[str, str]) -> tuple[bytes, Mapping[str, str]]:
    """Body and headers of a good answer. Raises OSError for any other, and for none."""
    now = datetime.datetime.now(datetime.timezone.utc)
    all_headers = signed(url, body, headers, env["REGION"], credentials(env.get("PROFILE", "")), now)
    request, opener = urllib.request.Request(url, body, all_headers), urllib.request.build_opener(NoRedirect)
    try:
        with opener.open(request, timeout=ANSWER_TIMEOUT_S) as response:
            return response.read(MAX_ANSWER_BYTES), response.headers
    except urllib.error.HTTPError as error:
        text = " ".join(error.read(MAX_ANSWER_BYTES).decode(errors="replace").split())
        raise OSError(f"{urlsplit(url).netloc} answered status {error.code}: {text[:300]}") from None


def signed(
    url: str, body: bytes, headers: Mapping[str, str], region: str, keys: Mapping[str, Any], now: datetime.datetime
) -> dict[str, str]:
    """The headers of a POST with AWS's signature. The path has nothing that needs an escape, and there is no query."""
    moment, scope = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}/{region}/sagemaker/aws4_request"
    token = {"X-Amz-Security-Token": keys["SessionToken"]} if keys.get("SessionToken") else {}
    sent = {**headers, "X-Amz-Date": moment, **token}
    lower = {**{name.lower(): value for name, value in sent.items()}, "host": urlsplit(url).netloc}
    names = ";".join(sorted(lower))
    lines = [f"{name}:{lower[name]}" for name in sorted(lower)]
    canonical = "\n".join(["POST", urlsplit(url).path, "", *lines, "", names, hashlib.sha256(body).hexdigest()])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys['SecretAccessKey']}".encode()
    for part in (*scope.split("/"), to_sign):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    credential = f"Credential={keys['AccessKeyId']}/{scope}"
    return {**sent, "Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={key.hex()}"}


@functools.cache  # they are valid for longer than the wait
def credentials(profile: str) -> Mapping[str, Any]:
    """Raises OSError where there are none."""
    names = {"AccessKeyId": "AWS_ACCESS_KEY_ID", "SecretAccessKey": "AWS_SECRET_ACCESS_KEY"}
    if not profile and all(os.environ.get(name) for name in names.values()):
        keys = {key: os.environ[name] for key, name in names.items()}
        return {**keys, "SessionToken": os.environ.get("AWS_SESSION_TOKEN", "")}
    if shutil.which("aws") is None:
        raise OSError("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or install AWS's CLI, which finds the others")
    command = [*GET_CREDENTIALS, *(["--profile", profile] if profile else [])]
    return json.loads(output_of(command))


if __name__ == "__main__":
    main(os.environ)
