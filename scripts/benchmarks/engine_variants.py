"""Variants of running the network on one core, side by side in one run: the table of docs/performance.md.

    make bench-engine

Every variant is measured at 1, 4, 16 and 64 images in a batch, as images a second. Predictions are compared with
float32, layer by layer, over the golden images. The last lines name the machine, and the variants that were left
out: a precision without instructions on this processor, or a variant that failed.
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
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from eval.samples.processors import parse_processor
from scripts.benchmarks.serving.engine_throughput import timed
from scripts.paths import GOLDEN_DIR, MODEL_DIR
from service.engines.fused import FusedResNet18
from service.engines.precision import PRECISIONS, probe_precision, usable_precisions
from service.engines.resnet import ResNet18
from service.engines.torch_engine import LayeredResNet18, fold_batch_norm, load_network
from service.errors import BundleError
from service.images.preprocess import decode_image
from service.model import Bundle, load_bundle
from service.system import processor

BATCH_SIZES = (1, 4, 16, 64)
Predict = Callable[[np.ndarray], np.ndarray]  # float32 [N, 3, S, S] -> probabilities float32 [N, classes]


def predict_with(scores: Callable[[Tensor], Tensor]) -> Predict:
    return lambda batch: scores(torch.from_numpy(batch)).softmax(1).float().numpy()


def service_variants(net: ResNet18, size_px: int) -> Iterator[tuple[str, Callable[[], Predict]]]:
    """The variants that the service autotunes over."""
    for precision in usable_precisions():
        dtype = PRECISIONS[precision]
        for layout in (torch.contiguous_format, torch.channels_last):
            title = f"{precision}, {str(layout).removeprefix('torch.').removesuffix('_format')}"
            for network, arguments in ((LayeredResNet18, ()), (FusedResNet18, (size_px,))):
                make = partial(network, net, dtype, *arguments, layout)
                yield f"{title}, {network.how}", lambda make=make: predict_with(make())


def rejected_variants(net: ResNet18, example: Tensor) -> Iterator[tuple[str, Callable[[], Predict]]]:
    """Variants that were tried and rejected."""

    def mkldnn_layout(precision: torch.dtype) -> Predict:
        from torch.utils.mkldnn import to_mkldnn

        body = copy.deepcopy(net)
        body.fc = nn.Identity()  # type: ignore[assignment]  # torchvision declares the exact class
        body = to_mkldnn(body, precision)

        def scores(x: Tensor) -> Tensor:
            x = x.to(precision).to_mkldnn()
            x = body.layer4(body.layer3(body.layer2(body.layer1(body.relu(body.bn1(body.conv1(x)))))))
            return net.fc(x.to_dense().float().mean((2, 3)))

        return predict_with(scores)

    def frozen_script() -> Predict:
        traced = torch.jit.trace(copy.deepcopy(net), example)
        return predict_with(torch.jit.optimize_for_inference(torch.jit.freeze(traced)))  # type: ignore[arg-type]  # a trace is a ScriptModule

    def compiled(precision: torch.dtype) -> Predict:
        import torch._inductor.config as inductor

        inductor.freezing = True  # weights become constants, packed as by the fused variant
        torch._dynamo.reset()
        body = LayeredResNet18(net, precision)
        return predict_with(torch.compile(body))

    for precision in usable_precisions():
        dtype = getattr(torch, precision)
        yield f"{precision}, torch.utils.mkldnn", lambda dtype=dtype: mkldnn_layout(dtype)
        yield f"{precision}, torch.compile, freezing", lambda dtype=dtype: compiled(dtype)
    yield "float32, frozen TorchScript", frozen_script


def onnx_variants(bundle: Bundle) -> Iterator[tuple[str, Callable[[], Predict]]]:
    def engine() -> Predict:
        from service.engines.onnx_engine import OnnxEngine

        return OnnxEngine(bundle).probabilities

    yield "onnx engine, int8", engine


def table_caption(cores: int) -> str:
    """Machine, libraries and date, as the table's caption."""
    here = replace(parse_processor(processor()), cores=cores)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime") if find_spec(name))
    return f"{here.with_cores}, {libraries}, {datetime.now(UTC).date()}"


def unavailable_precisions() -> dict[str, str]:
    """The precisions whose variants are left out, each with the reason."""
    return {
        name: f"{parse_processor(processor())}: {probe_precision(name).reason}"
        for name in PRECISIONS
        if name not in usable_precisions()
    }


def measure(predict: Predict, images: np.ndarray, seconds: float) -> list[float]:
    """Images a second at each of BATCH_SIZES, by the median batch."""
    batches = [np.ascontiguousarray(images[:size]) for size in BATCH_SIZES]
    return [len(batch) / statistics.median(timed(partial(predict, batch), seconds)) for batch in batches]


def compare(
    variants: Iterable[tuple[str, Callable[[], Predict]]], images: np.ndarray, seconds: float, console: Console
) -> tuple[Table, dict[str, str]]:
    """A row for every variant that runs, and why the others do not."""
    table = Table("variant", "ready ms", *(f"{size}/batch" for size in BATCH_SIZES), "same label", "largest dp")
    failed: dict[str, str] = {}
    reference = None
    with torch.inference_mode():
        for name, make in variants:
            console.print(f"  {name} ...", style="dim")
            started_at = time.perf_counter()
            try:
                predict = make()
                probabilities = predict(images[:64])
            except (RuntimeError, AttributeError, ImportError, BundleError) as error:
                failed[name] = (str(error) or type(error).__name__).splitlines()[0]
                continue
            ready_ms = (time.perf_counter() - started_at) * 1000
            reference = probabilities if reference is None else reference
            rates = [f"{rate:,.0f}/s" for rate in measure(predict, images, seconds)]
            same = np.mean(probabilities.argmax(1) == reference.argmax(1))
            table.add_row(
                name, f"{ready_ms:,.0f}", *rates, f"{same:.0%}", f"{np.abs(probabilities - reference).max():.4f}"
            )
    return table, failed


def main() -> None:
    parser = argparse.ArgumentParser(description="Variants of running the network, side by side.")
    parser.add_argument("--cores", type=int, default=1, help="cores to keep to; default: 1")
    parser.add_argument("--seconds", type=float, default=1.5, help="for each variant and size; default: 1.5")
    args = parser.parse_args()
    allowed = psutil.Process().cpu_affinity()[-args.cores :]
    psutil.Process().cpu_affinity(allowed)
    torch.set_num_threads(args.cores)
    warnings.filterwarnings("ignore", category=FutureWarning)  # TorchScript is deprecated, which is part of the answer
    bundle = load_bundle(MODEL_DIR)
    net = load_network(bundle)
    fold_batch_norm(net)
    images = np.stack([decode_image(path.read_bytes(), bundle) for path in sorted(GOLDEN_DIR.glob("*.png"))])
    console, caption = Console(width=140), table_caption(args.cores)
    variants = [
        *service_variants(net, bundle.image.size_px),
        *rejected_variants(net, torch.from_numpy(images[:1])),
        *onnx_variants(bundle),
    ]
    table, failed = compare(variants, images, args.seconds, console)
    console.print(table)
    for name, reason in (unavailable_precisions() | failed).items():
        console.print(f"left out: {name}: {reason}", soft_wrap=True)
    console.print(caption, soft_wrap=True)


if __name__ == "__main__":
    main()
