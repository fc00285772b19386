"""Where `pulumi up` begins: hands over to infra/<target>/__main__.py, the target being what the stack is named for.

`pulumi up --stack aws_ec2` runs infra/aws_ec2, and so does `aws_ec2-prod`, side by side with it.
"""

import importlib
import sys
from pathlib import Path

import pulumi

sys.path.insert(0, str(Path(__file__).resolve().parent))

from infra.errors import InfraError
from infra.targets import read_stack

try:
    target, _ = read_stack(pulumi.get_stack())
    importlib.import_module(f"infra.{target.name}.__main__")
except InfraError as error:  # one line, and nothing is created
    raise pulumi.RunError(str(error)) from None
