"""Mutants of what runs around the programs: the check of what is missing, logs, and the workflow that deploys."""

PREREQUISITES = "infra/preflight/prerequisites.py"
BACKEND = "infra/preflight/backend.py"
GOOGLE = "infra/preflight/google_access.py"
LOGS = "infra/logs/__main__.py"
WORKFLOW = ".github/workflows/deploy.yml"
OWN_STACK = "scripts/setup/pull_request_stack.py"

MUTANTS = {
    PREREQUISITES: {
        "settings that are given to pulumi are not seen": (" | dict(given_settings(pulumi_arguments))", ""),
        "a secret setting is a missing one": (
            "known = settings | dict.fromkeys(secret_keys",
            "known = settings | dict.fromkeys(()",
        ),
        "what the program would refuse is a traceback": ("except ConfigError as error:", "except KeyError as error:"),
        "a machine's own role counts where it is to be skipped": ('chain.remove("iam-role")', "chain"),
        "an unknown profile is a traceback": ("except botocore.exceptions.BotoCoreError", "except ConfigError"),
        "the image is built without a look for Docker": ("if target is GCP_CLOUDRUN:", "if target is HEROKU:"),
        "a builder that does not run counts": (r'r"\brunning\b"', 'r""'),
        "everyone needs gcloud": ("if invoker != PUBLIC_INVOKER and ", "if "),
        "the key in ~/.netrc does not count": (' or _netrc_has("api.heroku.com")', ""),
        "the advice sets a setting of a stack that is not there": ("pulumi stack select --create {stack} && ", ""),
    },
    BACKEND: {
        "an empty passphrase is none": ("any(name in env for", "any(env.get(name) for"),
        "a terminal that can be asked does not count": (
            "passphrase_asked and not interactive and",
            "passphrase_asked and",
        ),
        "a cloud's key needs a passphrase, too": (" and not _has_other_key(", " and not bool("),
        "a session that was ended still counts": (" or (url.startswith(WEB) and not token)", ""),
    },
    GOOGLE: {
        "the metadata server is asked": (", request=_no_answer)[0]", ")[0]"),
        "the project of the stack is asked, not the account's": ("if is_named else project", "if False else project"),
        "every refusal is a missing API": ('any("SERVICE_DISABLED" in error for', "any(True for"),
        "an API that is off is none that is missing": ('state != "ENABLED" for', 'state == "" for'),
        "a person is asked for APIs": (
            "if credentials is None or isinstance(credentials, google.oauth2.credentials.Credentials):",
            "if credentials is None:",
        ),
        "no network is an error": (
            "except (requests.RequestException, GoogleAuthError, ValueError):",
            "except ValueError:",
        ),
    },
    LOGS: {
        "the command's status is lost": (
            "return subprocess.run(command).returncode",
            "return subprocess.run(command).returncode * 0",
        ),
        "the command is not shown": ("print(shlex.join(command), file=sys.stderr, flush=True)", "pass"),
        "a setting can be an option": ('r"[A-Za-z0-9][A-Za-z0-9.:_-]*"', 'r"[A-Za-z0-9.:_-]+"'),
        "another stage's log is read": ('resource_name("run", name)', 'resource_name("run", target.name)'),
        "a program that is not there is a traceback": ("if shutil.which(program) is None:", "if not program:"),
        "the user's own arguments are dropped": ("    command += more\n", ""),
    },
    WORKFLOW: {
        "every job may write": ("permissions: {}", "permissions: write-all"),
        "the comment is written with a right to the code": ("      pull-requests: write #", "      contents: write #"),
        "a plan may end its block": ("s/\\`/'/g", "s/x/x/g"),
        "account numbers are shown": ("s/[0-9]{12}/************/g; ", ""),
        "a preview cancels a deployment that waits": ("group: preview-", "group: stack-"),
        "stages are deployed at once": ("max-parallel: 1 #", "max-parallel: 9 #"),
        "main's credentials are the requests'": ("environment: ${{ matrix.stack }} #", "environment: pull-request #"),
        "a stack that was closed is not searched": ('          make leftovers STACK="$STACK"\n', ""),
        "a stack that was closed stays, with nothing that knows of it": (
            "            make down STACK",
            "            : STACK",
        ),
    },
    OWN_STACK: {
        "a request's stack has the target's domain": ("not in DOMAIN + BUDGET", "not in BUDGET"),
        "a request's app has the target's name": ('-{stage}"  # one', '"  # one'),
        "a request's stack has secrets of another key": ('and "secure" in value', 'and "insecure" in value'),
        "a request's stack has no secrets": ("if not any(key in content", "if any(key not in content"),
        "a request's status is protected without a token": ("key == NEEDS_TOKEN and", "key == TOKEN and"),
        "a request may write the target's own file": ("if not stage:", "if not target:"),
    },
}
