"""Every mutant, by program. A module's MUTANTS map a file, then a mutant's name, to the old and the new text."""

from __future__ import annotations

from scripts.mutation.mutant import Mutant
from scripts.mutation.mutants import (
    aws_ec2,
    aws_sagemaker,
    gcp_cloudrun,
    gcp_function,
    heroku,
    operations,
    shared,
    vm_files,
)

MUTANTS = tuple(
    Mutant(module.__name__.rpartition(".")[2], name, file, old, new)
    for module in (aws_ec2, vm_files, aws_sagemaker, gcp_cloudrun, gcp_function, heroku, shared, operations)
    for file, replacements in module.MUTANTS.items()
    for name, (old, new) in replacements.items()
)
