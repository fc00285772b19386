"""The processor that gave a figure: as text, and whether two differ.

run.json and /version have the fields of service.system.processor. Old runs lack the instruction sets. If their torch
engine ran in bfloat16, the processor had instructions for it: the engine uses that precision only then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.formatting import plural
from eval.samples.model import Run, TargetRun

BFLOAT16_INSTRUCTION_SETS = ("AVX-512 BF16", "AMX-BF16", "bf16")  # of service.system.INSTRUCTION_SETS


@dataclass(frozen=True)
class Processor:
    """One processor as a run recorded it; None: not recorded."""

    cpu_model: str | None
    cpu_generation: str | None
    instruction_sets: list[str] | None  # None also if the system does not report them
    instruction_limits: dict[str, str] | None  # environment variables that keep libraries from using them
    bfloat16: bool | None  # whether it has bfloat16 instructions
    cores: int | None

    def __str__(self) -> str:
        """Such as "AMD EPYC (Zen 3; AVX2)", without the cores."""
        if not self.cpu_model:
            return "a processor that was not recorded"
        if self.instruction_sets is not None:
            instruction_text = ", ".join(self.instruction_sets) or "no AVX2 or later"
        elif self.instruction_limits is not None:  # both were looked up
            instruction_text = "instruction sets not known"
        elif self.bfloat16:
            instruction_text = "bfloat16 in hardware, other instruction sets not recorded"
        else:
            instruction_text = "instruction sets not recorded"
        limit_texts = [f"kept to {name}={value}" for name, value in (self.instruction_limits or {}).items()]
        details = [self.cpu_generation, instruction_text, *limit_texts]
        return f"{self.cpu_model} ({'; '.join(filter(None, details))})"

    @property
    def with_cores(self) -> str:
        """Such as "2 cores of AMD EPYC (Zen 3; AVX2)"."""
        return f"{plural(self.cores, 'core')} of {self}" if self.cores and self.cpu_model else str(self)


def parse_processor(data: Mapping[str, Any], variant: str = "") -> Processor:
    """From the client environment of a run or a response of /version. `variant`: of the torch engine, if known."""
    instruction_sets = data.get("instruction_sets")
    return Processor(
        cpu_model=data.get("cpu_model"),
        cpu_generation=data.get("cpu_generation"),
        instruction_sets=instruction_sets,
        instruction_limits=data.get("instruction_limits"),
        bfloat16=variant.startswith("bfloat16") or None
        if instruction_sets is None
        else any(name in BFLOAT16_INSTRUCTION_SETS for name in instruction_sets),
        cores=data.get("cores", data.get("cpus")),
    )


def client_processor(run: Run) -> Processor:
    """The processor of the client, on which the twins ran too."""
    variants = [
        variant
        for target in run.targets
        if target.twin and (variant := engine_variant(target.version)).startswith("bfloat16")
    ]
    return parse_processor(run.client_environment, next(iter(variants), ""))


def target_processor(run: Run, target: TargetRun) -> Processor:
    """The processor of the target: for a deployment, of the instance that responded to /version."""
    return client_processor(run) if target.twin else parse_processor(target.version, engine_variant(target.version))


def engine_variant(version: Mapping[str, Any]) -> str:
    """The engine's variant in /version, such as "bfloat16, channels_last, fused by oneDNN"; or ""."""
    return (version.get("engine_details") or {}).get("form") or ""


def processors_differ(a: Processor, b: Processor) -> bool | None:
    """Whether two processors differ; None if too little was recorded to tell."""
    value_pairs = [(getattr(a, field), getattr(b, field)) for field in
             ("cpu_model", "cpu_generation", "instruction_sets", "instruction_limits", "bfloat16")]  # fmt: skip
    if any(value_a is not None and value_b is not None and value_a != value_b for value_a, value_b in value_pairs):
        return True
    return None if a.instruction_sets is None or b.instruction_sets is None else False
