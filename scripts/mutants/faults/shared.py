"""Faults in what all four programs use: the bundle, the settings, the outputs, the start."""

from __future__ import annotations

from scripts.mutants.fault import Fault

TARGET = "shared"
BUNDLE = "infra/artifact.py"
COMMON = "infra/common.py"
NAMING = "infra/naming.py"
START = "__main__.py"

FAULTS: tuple[Fault, ...] = (
    Fault(
        TARGET,
        "the times of files stand in the tar",
        BUNDLE,
        "info.size, info.mode = len(content), FILE_MODE",
        "info.size, info.mode, info.mtime = len(content), FILE_MODE, int(path.stat().st_mtime)",
    ),
    Fault(TARGET, "gzip's clock stands in the tar", BUNDLE, "GZIP_LEVEL, mtime=0)", "GZIP_LEVEL)"),
    Fault(
        TARGET,
        "files are artifact in the order in which the disk has them",
        BUNDLE,
        "return dict(sorted((files | dict(extra or {})).items()))",
        "return files | dict(extra or {})",
    ),
    Fault(TARGET, "Python's caches are shipped", BUNDLE, 'EXCLUDED = ("__pycache__", ".DS_Store")', "EXCLUDED = ()"),
    Fault(
        TARGET,
        "an absolute path to the archive",
        BUNDLE,
        'Artifact(f"./{BUILD_DIR / name}", hashlib',
        "Artifact(str(path), hashlib",
    ),
    Fault(
        TARGET,
        "a file that was renamed is no change",
        BUNDLE,
        'total.update(f"{content}  {member}\\n".encode())',
        'total.update(f"{content}\\n".encode())',
    ),
    Fault(
        TARGET,
        "what was shipped once is shipped for ever",
        BUNDLE,
        "    shutil.rmtree(root, ignore_errors=True)\n",
        "",
    ),
    Fault(
        TARGET,
        "the token is no secret",
        COMMON,
        "return pulumi.Output.secret(value)",
        "return pulumi.Output.from_input(value)",
    ),
    Fault(
        TARGET,
        "a token that stands in clear in the settings is taken",
        COMMON,
        'if not pulumi.runtime.is_config_secret(f"{PROJECT}:apiToken"):',
        "if False:",
    ),
    Fault(
        TARGET,
        "the refusal of a token repeats it",
        COMMON,
        '"cloudtrial:apiToken stands there in clear: set it with --secret"',
        'f"cloudtrial:apiToken is {value}, in clear: set it with --secret"',
    ),
    Fault(
        TARGET,
        "a misspelt setting is passed over",
        COMMON,
        "if unknown := sorted(keys - self._read):",
        "if unknown := sorted(keys - keys):",
    ),
    Fault(
        TARGET,
        "a stage has the names of the stack beside it",
        NAMING,
        "filter(None, (PROJECT, part, stage))",
        "filter(None, (PROJECT, part))",
    ),
    Fault(
        TARGET,
        "tags do not say the stack",
        NAMING,
        'return {"project": PROJECT, "stack": stack}',
        'return {"project": PROJECT}',
    ),
    Fault(
        TARGET,
        "the day stands in the tags: each day, all changes",
        NAMING,
        'return {"project": PROJECT, "stack": stack}',
        'return {"project": PROJECT, "stack": stack, "made": str(__import__("datetime").date.today())}',
    ),
    Fault(TARGET, "an output is missing", COMMON, '    pulumi.export("size", size)\n', ""),
    Fault(
        TARGET,
        "the model's version is not the one that the service reports",
        COMMON,
        "[WEIGHTS_OF[engine]][:VERSION_DIGITS]",
        "[WEIGHTS_OF[engine]][:8]",
    ),
    Fault(
        TARGET,
        "the model's version is another engine's",
        COMMON,
        "[WEIGHTS_OF[engine]][:VERSION_DIGITS]",
        '["weights.safetensors"][:VERSION_DIGITS]',
    ),
    Fault(
        TARGET,
        "an engine is deployed whose file nobody has written",
        COMMON,
        "if weights not in _model_files() or not (Settings.model_dir / weights).is_file():",
        "if False:",
    ),
    Fault(
        TARGET,
        "every engine's weights are shipped",
        BUNDLE,
        "of_models = (MODEL_JSON, WEIGHTS_OF[engine])",
        "of_models = (MODEL_JSON, *WEIGHTS_OF.values())",
    ),
    Fault(
        TARGET,
        "every engine installs torch",
        BUNDLE,
        '"onnx": "requirements-onnx.txt"}',
        '"onnx": "requirements.txt"}',
    ),
    Fault(
        TARGET,
        "an unknown stack ends in a traceback",
        START,
        "    raise pulumi.RunError(str(error)) from None",
        "    raise",
    ),
)
