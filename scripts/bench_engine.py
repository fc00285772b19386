"""Ways to run the network on one core, side by side in one run: the table of docs/performance.md.

    make bench-engine

Every way is measured at 1, 4, 16 and 64 pictures in a pass, as pictures a second, and against the slowest way of the
torch ones at the same size. Answers are compared with float32, layer by layer, over the golden pictures. The last lines
say what gave the figures, and which ways were left out: a precision that the processor has no instructions for, or a
way that failed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from eval.samples.processors import processor_of
from service.engines.fused import FusedResNet18
from service.engines.precision import PRECISIONS, probe_precision, usable_precisions
from service.engines.torch_engine import LayeredResNet18, fold_batch_norm, load_network
from service.machine import processor
from service.model import Bundle, BundleError, load_bundle
from service.network import ResNet18
from service.preprocess import read_picture

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "models" / "resnet18-cifar10"
GOLDEN = ROOT / "eval" / "golden"
PASSES = (1, 4, 16, 64)  # pictures
Way = Callable[[np.ndarray], np.ndarray]  # float32 [N, 3, S, S] -> probabilities float32 [N, classes]


def as_way(scores: Callable[[Tensor], Tensor]) -> Way:
    return lambda batch: scores(torch.from_numpy(batch)).softmax(1).float().numpy()


def own_ways(net: ResNet18, size_px: int) -> Iterator[tuple[str, Callable[[], Way]]]:
    """Those that the service chooses from."""
    for precision in usable_precisions():
        dtype = PRECISIONS[precision]
        for layout in (torch.contiguous_format, torch.channels_last):
            title = f"{precision}, {str(layout).removeprefix('torch.').removesuffix('_format')}"
            ways: dict[str, Callable[[], Way]] = {
                LayeredResNet18.how: lambda dtype=dtype, layout=layout: as_way(LayeredResNet18(net, dtype, layout)),
                FusedResNet18.how: lambda dtype=dtype, layout=layout: as_way(
                    FusedResNet18(net, dtype, size_px, layout)
                ),
            }
            yield from ((f"{title}, {how}", make) for how, make in ways.items())


def other_ways(net: ResNet18, example: Tensor) -> Iterator[tuple[str, Callable[[], Way]]]:
    """Those that were tried and not taken."""

    def mkldnn_layout(precision: torch.dtype) -> Way:
        from torch.utils.mkldnn import to_mkldnn

        body = copy.deepcopy(net)
        body.fc = nn.Identity()  # type: ignore[assignment]  # torchvision declares the exact class
        body = to_mkldnn(body, precision)

        def scores(x: Tensor) -> Tensor:
            x = x.to(precision).to_mkldnn()
            x = body.layer4(body.layer3(body.layer2(body.layer1(body.relu(body.bn1(body.conv1(x)))))))
            return net.fc(x.to_dense().float().mean((2, 3)))

        return as_way(scores)

    def frozen_script() -> Way:
        traced = torch.jit.trace(copy.deepcopy(net), example)
        return as_way(torch.jit.optimize_for_inference(torch.jit.freeze(traced)))  # type: ignore[arg-type]  # a trace is a ScriptModule

    def compiled(precision: torch.dtype) -> Way:
        import torch._inductor.config as inductor

        inductor.freezing = True  # weights become constants, packed as the fused form packs them
        torch._dynamo.reset()
        body = LayeredResNet18(net, precision)
        return as_way(torch.compile(body))

    for precision in usable_precisions():
        dtype = getattr(torch, precision)
        yield f"{precision}, torch.utils.mkldnn", lambda dtype=dtype: mkldnn_layout(dtype)
        yield f"{precision}, torch.compile, freezing", lambda dtype=dtype: compiled(dtype)
    yield "float32, frozen TorchScript", frozen_script


def onnx_ways(bundle: Bundle) -> Iterator[tuple[str, Callable[[], Way]]]:
    def engine() -> Way:
        from service.engines.onnx_engine import OnnxEngine

        return OnnxEngine(bundle).probabilities

    yield "onnx engine, int8", engine


def measured_on(cores: int) -> str:
    """What gave the figures, as a table's caption needs it."""
    its = replace(processor_of(processor()), cores=cores)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime") if find_spec(name))
    return f"{its.with_cores}, {libraries}, {datetime.now(UTC).date()}"


def missing_precisions() -> dict[str, str]:
    """The precisions whose ways are left out, each with the reason."""
    return {
        name: f"{processor_of(processor())}: {probe_precision(name).reason}"
        for name in PRECISIONS
        if name not in usable_precisions()
    }


def measure(way: Way, pictures: np.ndarray, seconds: float) -> list[float]:
    """Pictures a second at each of PASSES, by the median pass; the first one of each size is not counted."""
    rates = []
    for size in PASSES:
        batch = np.ascontiguousarray(pictures[:size])
        way(batch)
        took, until = [], time.perf_counter() + seconds
        while time.perf_counter() < until or len(took) < 3:
            begun = time.perf_counter()
            way(batch)
            took.append(time.perf_counter() - begun)
        rates.append(size / statistics.median(took))
    return rates


def compare(
    ways: Iterable[tuple[str, Callable[[], Way]]], pictures: np.ndarray, seconds: float, console: Console
) -> tuple[Table, dict[str, str]]:
    """Every way that can be run as a row, and why the others cannot."""
    table = Table("way", "ready ms", *(f"{size}/pass" for size in PASSES), "same answer", "largest dp")
    failed: dict[str, str] = {}
    truth = None
    with torch.inference_mode():
        for name, make in ways:
            console.print(f"  {name} ...", style="dim")
            begun = time.perf_counter()
            try:
                way = make()
                answers = way(pictures[:64])
            except (RuntimeError, AttributeError, ImportError, BundleError) as error:
                failed[name] = (str(error) or type(error).__name__).splitlines()[0]
                continue
            ready_ms = (time.perf_counter() - begun) * 1000
            truth = answers if truth is None else truth
            rates = [f"{rate:,.0f}/s" for rate in measure(way, pictures, seconds)]
            same = np.mean(answers.argmax(1) == truth.argmax(1))
            table.add_row(name, f"{ready_ms:,.0f}", *rates, f"{same:.0%}", f"{np.abs(answers - truth).max():.4f}")
    return table, failed


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways to run the network, side by side.")
    parser.add_argument("--cores", type=int, default=1, help="cores to keep to; default: 1")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each way and size; default: 1.5")
    args = parser.parse_args()
    allowed = psutil.Process().cpu_affinity()[-args.cores :]
    psutil.Process().cpu_affinity(allowed)
    torch.set_num_threads(args.cores)
    warnings.filterwarnings("ignore", category=FutureWarning)  # TorchScript is deprecated, which is part of the answer
    bundle = load_bundle(BUNDLE)
    net = load_network(bundle)
    fold_batch_norm(net)
    pictures = np.stack([read_picture(path.read_bytes(), bundle) for path in sorted(GOLDEN.glob("*.png"))])
    console, caption = Console(width=140), measured_on(args.cores)
    ways = [*own_ways(net, bundle.size_px), *other_ways(net, torch.from_numpy(pictures[:1])), *onnx_ways(bundle)]
    table, failed = compare(ways, pictures, args.seconds, console)
    console.print(table)
    for name, why in (missing_precisions() | failed).items():
        console.print(f"left out: {name}: {why}", soft_wrap=True)
    console.print(caption, soft_wrap=True)


if __name__ == "__main__":
    main()
