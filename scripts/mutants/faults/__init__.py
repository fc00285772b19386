"""Every fault that is planted, by what it harms."""

from __future__ import annotations

from scripts.mutants.fault import Fault
from scripts.mutants.faults import aws_ec2, gcp_cloudrun, gcp_function, heroku, shared, vm_files

FAULTS: tuple[Fault, ...] = (
    *aws_ec2.FAULTS,
    *vm_files.FAULTS,
    *gcp_cloudrun.FAULTS,
    *gcp_function.FAULTS,
    *heroku.FAULTS,
    *shared.FAULTS,
)
