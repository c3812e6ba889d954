"""What a GPU gives: matrix products, attention backends, steps of Base and Large, and the original style beside them.

    PYTHONPATH=. python benchmarks/gpu.py [--device cuda] [--size base large] [--budget-s 330] [--json FILE]

Needs torch and this checkout, neither Ray nor MLflow. bf16 autocast, dropout 0 unless the name says so (FlexAttention
has none for its weights), rows packed with segments of 560 positions (512 tokens, 24 blanks); a step is forward,
backward, clipping and fused AdamW, medians of synchronised steps. MFU counts useful operations
(`glm_model.config.flops_per_token`) against the card's specified dense bf16 peak where it is known, else against the
measured product. (The formula counts the last layer in full; ours leaves out what comes after its attention at context
positions, 4 % of Base and 2 % of Large.) `original style` is benchmarks/original_style.py: one segment per row, dense
mask, logits of all positions, activations computed again. A part that fails prints its error, the rest goes on; parts
that would start after --budget-s are left out.
"""

import argparse
import functools
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from batches import POSITIONS, TOKENS, make_batch, useful_flops
from original_style import OriginalStyle

from glm_model.attention import Use, attention, make_mask
from glm_model.attention.backends import Backend
from glm_model.attention.choice import PREFERENCE
from glm_model.config import OptimConfig, sized
from glm_model.model import GLM
from glm_model.train import TrainStep, autocast, clip_gradients, make_optimizer, peak_flops


class Report:
    """Figures so far; prints them as they come, runs parts within a budget of time, and survives their failures."""

    def __init__(self, budget_s: float):
        self.values: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.ends_at = time.perf_counter() + budget_s

    def add(self, name: str, figures: dict[str, float]) -> None:
        self.values |= {f"{name}_{key}": value for key, value in figures.items()}
        print(f"{name:40} " + "  ".join(f"{key} {value:,.4g}" for key, value in figures.items()), flush=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        try:
            if time.perf_counter() > self.ends_at:
                raise TimeoutError("the time is over (--budget-s)")
            yield
        except Exception as error:  # one kernel's failure is no reason to lose the other figures
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
            self.failed[name] = reason
            print(f"{name:40} failed: {reason}", flush=True)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    report = Report(options.budget_s)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    print(f"{machine}, torch {torch.__version__}")
    with report.part("gemm"):
        measure_gemm(report, device)
    known = peak_flops(device)
    peak = known / 1e12 if known else report.values.get("gemm_tflops", float("nan"))
    best, *others = PREFERENCE[device.type]
    for size in options.size:
        measure = functools.partial(measure_step, report, size, device, peak)
        for positions in options.positions:
            measure(positions, best, "eager")
        measure_original(report, size, device, peak, options.positions[0])
        for positions in options.positions:
            if "compile" in options.modes:
                measure(positions, best, "compile")
    for positions in options.positions:
        measure_attention(report, device, positions)
    for size in options.size:
        measure_step(report, size, device, peak, options.positions[0], best, options.modes[-1], dropout=0.1)
        for backend in others:
            for mode in options.modes:
                measure_step(report, size, device, peak, options.positions[0], backend, mode)
    ratios = speedups(report.values, options.size)
    for name, ratio in ratios.items():
        print(f"{name:40} {ratio:.2f} x")
    if options.json:
        figures = {"name": "gpu", "machine": machine, "values": report.values, "ratios": ratios}
        with open(options.json, "w") as file:
            json.dump({**figures, "failed": report.failed, "torch": torch.__version__}, file, indent=2)


def measure_gemm(report: Report, device: torch.device) -> None:
    """The best bf16 product of three shapes, TFLOP/s."""
    sizes = [(8192, 8192, 8192), (16384, 768, 3072), (65536, 1024, 4096)]
    best = 0.0
    for m, k, n in sizes if device.type == "cuda" else [(512, 256, 256)]:
        a, b = (torch.randn(shape, device=device, dtype=torch.bfloat16) for shape in ((m, k), (k, n)))
        seconds = timed(lambda a=a, b=b: a @ b, device, repeats=20)
        best = max(best, 2 * m * k * n / seconds / 1e12)
    report.add("gemm", {"tflops": best})


def measure_attention(
    report: Report, device: torch.device, positions: int, *, heads: int = 12, width: int = 64
) -> None:
    """Forward and backward of one layer's attention in every backend, ms, on one packed row."""
    batch = packed(positions, 1024, device)
    dtype = torch.bfloat16
    qkv = torch.randn(1, positions, 3, heads, width, device=device, dtype=dtype, requires_grad=True)
    way = torch.randn(1, positions, heads, width, device=device, dtype=dtype)
    for backend in PREFERENCE[device.type]:
        name = f"attention_{positions}_{backend}"
        with report.part(name):
            make = functools.partial(make_mask, batch["segment_ids"], batch["context_end"], (1, positions), device)
            mask = make(backend=backend, use=Use(dtype, width))

            def run(mask=mask) -> None:
                attention(*qkv.unbind(2), mask).backward(way)
                qkv.grad = None

            build_s = timed(lambda make=make, backend=backend: make(backend=backend, use=Use(dtype, width)), device)
            report.add(name, {"ms": 1e3 * timed(run, device), "mask_ms": 1e3 * build_s})


def measure_step(
    report: Report,
    size: str,
    device: torch.device,
    peak: float,
    positions: int,
    backend: Backend,
    mode: str,
    *,
    dropout: float = 0.0,
) -> None:
    name = f"{size}_{positions}_{mode}_{backend}{'_dropout' if dropout else ''}"
    with report.part(name):
        torch.compiler.reset()  # or the next size would be compiled for any width
        model = fresh(size, device, dropout=dropout)
        step = TrainStep(model, precision="bf16", compiled=mode == "compile", backend=backend)
        batch = packed(positions, model.config.vocab_size, device)

        def loss() -> torch.Tensor:
            sums, counts = step(batch)
            return (sums / counts).sum()

        report.add(name, rates(model, loss, device, peak, positions // POSITIONS))


def measure_original(report: Report, size: str, device: torch.device, peak: float, positions: int) -> None:
    name = f"{size}_{positions}_original_style"
    with report.part(name):
        model, segments = fresh(size, device), positions // POSITIONS
        original = OriginalStyle(model)
        batch = make_batch(segments, vocab_size=model.config.vocab_size, device=str(device))

        def loss() -> torch.Tensor:
            with autocast("bf16", device):
                return original(batch)

        report.add(name, rates(model, loss, device, peak, segments))


def rates(
    model: GLM, loss: Callable[[], torch.Tensor], device: torch.device, peak: float, segments: int
) -> dict[str, float]:
    """Speed, MFU and memory of whole steps over a number of segments; padding counts as nothing."""
    optimizer = make_optimizer(model, OptimConfig(lr=1e-5))

    def step() -> None:
        loss().backward()
        clip_gradients(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = timed(step, device)
    per_second = segments * POSITIONS / seconds
    figures = {"ms": 1e3 * seconds, "positions_per_s": per_second, "tokens_per_s": per_second * TOKENS / POSITIONS}
    figures["mfu"] = useful_flops(model.config) * per_second / (peak * 1e12)
    if device.type == "cuda":
        figures["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return figures


def speedups(values: dict[str, float], sizes: list[str]) -> dict[str, float]:
    """Tokens/s of the fastest step of a size over the original style's."""
    ratios = {}
    for size in sizes:
        rate = {name: v for name, v in values.items() if name.startswith(f"{size}_") and name.endswith("_tokens_per_s")}
        theirs = [v for name, v in rate.items() if "original_style" in name]
        ours = [v for name, v in rate.items() if "original_style" not in name]
        if theirs and ours:
            ratios[f"{size}_vs_original_style"] = max(ours) / theirs[0]
    return ratios


def timed(work: Callable[[], object], device: torch.device, *, repeats: int = 10, warm_up: int = 3) -> float:
    """Median seconds of a call, with all that it started on the device; fewer repeats where one takes long."""
    took = []
    for index in range(warm_up + repeats):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - started)
        if index >= warm_up and sum(took[warm_up:]) > 4:
            break
    return statistics.median(took[warm_up:])


def fresh(size: str, device: torch.device, *, dropout: float = 0.0) -> GLM:
    torch.manual_seed(0)
    return GLM(sized(size, dropout=dropout, attention_dropout=dropout)).to(device)


def packed(positions: int, vocab_size: int, device: torch.device) -> dict[str, torch.Tensor]:
    return make_batch(positions // POSITIONS, vocab_size=vocab_size, width=positions, device=str(device))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", nargs="+", default=["base", "large"])
    parser.add_argument("--positions", nargs="+", type=int, help="row widths; default 16384 65536, on a CPU 1120")
    parser.add_argument("--modes", nargs="+", choices=["eager", "compile"], help="default both, on a CPU eager")
    parser.add_argument("--budget-s", type=float, default=330.0)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    if not on_cpu and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here. Try --device cpu --size tiny, or a build of torch for this GPU")
    options.positions = options.positions or ([1120] if on_cpu else [16_384, 65_536])
    options.modes = options.modes or (["eager"] if on_cpu else ["eager", "compile"])
    return options


if __name__ == "__main__":
    main()
