"""Mutants of what all five programs use: the bundle, the settings, the outputs, the start."""

BUNDLE = "infra/artifact.py"
COMMON = "infra/common.py"
MODELS = "infra/models.py"
NAMING = "infra/naming.py"
START = "__main__.py"

MUTANTS = {
    "infra/stored_model.py": {
        "a VM of AWS is told to follow a bucket of Google's": (
            'if follows and not (BUCKET_URL.fullmatch(url) and url.startswith(f"{follows}://")):',
            "if follows and not BUCKET_URL.fullmatch(url):",
        ),
        "the store's place in its bucket is lost": (
            'return match[2], (match[3] or "").strip("/")',
            'return match[2], ""',
        ),
    },
    BUNDLE: {
        "the times of files stand in the tar": (
            "info.size, info.mode = path.stat().st_size, FILE_MODE",
            "info.size, info.mode, info.mtime = path.stat().st_size, FILE_MODE, int(path.stat().st_mtime)",
        ),
        "gzip's clock stands in the tar": ("GZIP_LEVEL, raw, mtime=0)", "GZIP_LEVEL, raw)"),
        "files are artifact in the order in which the disk has them": (
            "return dict(sorted((files | dict(extra or {})).items()))",
            "return files | dict(extra or {})",
        ),
        "Python's caches are shipped": ('EXCLUDED = ("__pycache__", ".DS_Store")', "EXCLUDED = ()"),
        "an absolute path to the archive": (
            'return Artifact(f"./{BUILD_DIR / name}", sha256(',
            "return Artifact(str(REPOSITORY / BUILD_DIR / name), sha256(",
        ),
        "a file that was renamed is no change": (
            'total.update(f"{sha256(path)}  {member}\\n".encode())',
            'total.update(f"{sha256(path)}\\n".encode())',
        ),
        "what was shipped once is shipped for ever": ("    shutil.rmtree(root, ignore_errors=True)\n", ""),
        "every engine's weights are shipped": (
            "for name in (MODEL_JSON, *bundle.files_for(engine))",
            "for name in (MODEL_JSON, *bundle.files)",
        ),
        "another model is shipped than the one that is named": (
            "bundle = as_bundle(model)",
            "bundle = as_bundle(DEFAULT_MODEL)",
        ),
        "every engine installs torch": ('"onnx": "requirements-onnx.txt"}', '"onnx": "requirements.txt"}'),
    },
    COMMON: {
        "the token is no secret": ("return pulumi.Output.secret(value)", "return pulumi.Output.from_input(value)"),
        "a token that stands in clear in the settings is taken": (
            'if not pulumi.runtime.is_config_secret(f"{PROJECT}:apiToken"):',
            "if False:",
        ),
        "the refusal of a token repeats it": (
            '"cloudtrial:apiToken is stored in clear: set it with --secret"',
            'f"cloudtrial:apiToken is {value}, in clear: set it with --secret"',
        ),
        "a misspelt setting is passed over": (
            "if unknown := sorted(keys - self._read):",
            "if unknown := sorted(keys - keys):",
        ),
        "an output is missing": ('    pulumi.export("size", size)\n', ""),
        "the model's version is not the one that the service reports": (
            "model.version(model.engine(engine).file))",
            "model.version(model.engine(engine).file)[:8])",
        ),
        "the model's version is another engine's": (
            "model.version(model.engine(engine).file))",
            "model.version(next(iter(model.engines.values())).file))",
        ),
    },
    MODELS: {
        "an engine is deployed whose file nobody has written": (
            "if not (bundle.folder / (file := bundle.engine(engine).file)).is_file():",
            'if (file := ""):',
        ),
        "the service is not told which model was shipped": (', "MODEL_DIR": f"models/{model}"}', "}"),
    },
    "infra/waits/wait_ready.py": {
        "the old revision passes for one that did not get ready": ("if created != ready:", "if False:"),
        "up ends though another version answers": ("if reported[name] != sent:", "if False:"),
        "an older VM's answer proves the new one, and sees the token": ("build_opener(NoRedirect, ", "build_opener("),
        "any certificate will do": (
            "context.load_default_certs()",
            "context.check_hostname, context.verify_mode = False, ssl.CERT_NONE",
        ),
        "a domain loses HTTPS": ('elif unready(url, {**env, "ADDRESS_FILE": ""}):', "else:"),
        "a newer script asks an address that the VM has no more": ('if "PULUMI_COMMAND_STDOUT" in env:', "if False:"),
    },
    "infra/waits/polling.py": {
        "up is ended by one answer, perhaps of the old VM": ("SUCCESSES_NEEDED = 3", "SUCCESSES_NEEDED = 1"),
    },
    "infra/readiness.py": {
        "a Python of this machine alone, so that another machine sees a change": (
            'interpreter=["python3", "-c"]',
            'interpreter=[__import__("sys").executable, "-c"]',
        ),
        "what is sent changes nothing: another version is not asked": ("triggers=[git_sha, *triggers]", "triggers=[]"),
        "the model that is meant is not the one that is sent": (
            "model.files[model.engine(engine).file]",
            "next(iter(model.files.values()))",
        ),
    },
    "infra/git_sha.py": {
        "a commit that changes no deployment changes its name": ('"--format=%H", "--", *paths', '"--format=%H"'),
        "what is not committed has a commit's name": ('if commit and changed == "":', "if commit:"),
    },
    NAMING: {
        "a stage has the names of the stack beside it": (
            "filter(None, (PROJECT, part, stage))",
            "filter(None, (PROJECT, part))",
        ),
        "tags do not say the stack": ('return {"project": PROJECT, "stack": stack}', 'return {"project": PROJECT}'),
        "the day stands in the tags: each day, all changes": (
            'return {"project": PROJECT, "stack": stack}',
            'return {"project": PROJECT, "stack": stack, "made": str(__import__("datetime").date.today())}',
        ),
    },
    START: {
        "an unknown stack ends in a traceback": ("    raise pulumi.RunError(str(error)) from None", "    raise"),
    },
}
