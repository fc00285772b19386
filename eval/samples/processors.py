"""Which processor gave a figure: in words, and whether two are alike.

The facts are those of service.machine.processor, as run.json and the answers of /version hold them. Runs made before
instruction sets were recorded lack them. One thing is still known where their torch engine ran in bfloat16: it takes
that precision only on a processor with instructions for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.formatting import plural
from eval.samples.model import Run, TargetRun

BFLOAT16 = ("AVX-512 BF16", "AMX-BF16", "bf16")  # of service.machine.INSTRUCTION_SETS


@dataclass(frozen=True)
class Processor:
    """One processor as a run recorded it; None stands for what was not recorded."""

    cpu_model: str | None
    cpu_generation: str | None
    instruction_sets: list[str] | None  # None also where the system does not tell them
    instruction_limits: dict[str, str] | None  # variables that keep libraries from using them
    bfloat16: bool | None  # whether it has instructions for it
    cores: int | None

    def __str__(self) -> str:
        """As "AMD EPYC (Zen 3; AVX2)", without the cores."""
        if not self.cpu_model:
            return "a processor that was not recorded"
        if self.instruction_sets is not None:
            sets = ", ".join(self.instruction_sets) or "no AVX2 or later"
        elif self.instruction_limits is not None:  # both were looked for
            sets = "instruction sets not known"
        elif self.bfloat16:
            sets = "bfloat16 in hardware, other instruction sets not recorded"
        else:
            sets = "instruction sets not recorded"
        limits = [f"kept to {name}={value}" for name, value in (self.instruction_limits or {}).items()]
        about = [self.cpu_generation, sets, *limits]
        return f"{self.cpu_model} ({'; '.join(filter(None, about))})"

    @property
    def with_cores(self) -> str:
        """As "2 cores of AMD EPYC (Zen 3; AVX2)"."""
        return f"{plural(self.cores, 'core')} of {self}" if self.cores and self.cpu_model else str(self)


def processor_of(facts: Mapping[str, Any], form: str = "") -> Processor:
    """From the machine of a run or an answer of /version; `form` is how a torch engine ran on it, where known.

    An endpoint may answer anything at /version: what is not of the right type counts as not recorded.
    """
    sets = _typed(facts.get("instruction_sets"), list)
    return Processor(
        cpu_model=_typed(facts.get("cpu_model"), str),
        cpu_generation=_typed(facts.get("cpu_generation"), str),
        instruction_sets=None if sets is None else [str(name) for name in sets],
        instruction_limits=_typed(facts.get("instruction_limits"), dict),
        bfloat16=form.startswith("bfloat16") or None if sets is None else any(name in BFLOAT16 for name in sets),
        cores=_typed(facts.get("cores", facts.get("cpus")), int),
    )


def _typed(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None


def client_of(run: Run) -> Processor:
    """The machine that sent the requests, on which the twins ran as well."""
    forms = [form for t in run.targets if t.twin and (form := form_of(t.version)).startswith("bfloat16")]
    return processor_of(run.machine, next(iter(forms), ""))


def target_of(run: Run, target: TargetRun) -> Processor:
    """Where the target ran: of a deployed one, the instance that answered /version."""
    return client_of(run) if target.twin else processor_of(target.version, form_of(target.version))


def form_of(version: Mapping[str, Any]) -> str:
    """How an engine ran, as its /version tells it: "bfloat16, channels_last, fused by oneDNN"; or ""."""
    return str((_typed(version.get("engine_details"), dict) or {}).get("form", ""))


def differ(a: Processor, b: Processor) -> bool | None:
    """Whether two processors are unlike; None where too little of them was recorded to tell."""
    pairs = [(getattr(a, key), getattr(b, key)) for key in
             ("cpu_model", "cpu_generation", "instruction_sets", "instruction_limits", "bfloat16")]  # fmt: skip
    if any(x is not None and y is not None and x != y for x, y in pairs):
        return True
    return None if a.instruction_sets is None or b.instruction_sets is None else False
