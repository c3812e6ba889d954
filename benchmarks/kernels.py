"""Pieces of computing on a CPU beside what they replace: products of few positions, losses, Muon's matrices, attention.

    python benchmarks/kernels.py [--rounds 15] [--json FILE]

One thread, contenders in turns; CPU milliseconds, medians over rounds. `products`: [O, I] times so many positions, over
as many matrices as do not fit in the cache, by torch and in blocks (`glm_model/products.py`), in GB of weights a
second; `sum` reads as many bytes. `losses`: 512 rows of 8,192 logits in bf16. `muon`: all matrices of a size, each
iterated (`plain`), by a polynomial of its rows (`rows`), and as it is chosen. `attention`: one new position to a cache
of `mini`, by torch and as two products and a softmax, ten times. `layer`: what follows attention in a layer of `mini`,
without gradients, of all positions at once and as `glm_model/model.py` cuts them into pieces.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from glm_model import loss, model, muon, products, sized
from glm_model.config import LossOptions

Contenders = dict[str, Callable[[], object]]


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    values: dict[str, float] = {}
    for measure in (few_positions, many_positions, losses, muon_matrices, attention, layer):
        values |= measure(options.rounds)
    for name, value in values.items():
        print(f"{name:52} {value:9.2f}")
    if options.json:
        report = {"name": "kernels", "machine": platform.processor() or platform.machine(), "values": values}
        with open(options.json, "w") as file:
            json.dump(report | {"ratios": {}}, file, indent=2)


@torch.no_grad()
def few_positions(rounds: int) -> dict[str, float]:
    """GB/s of one, two and three positions, and of reading."""
    found = {}
    for outputs, inputs in ((2304, 768), (768, 3072), (30592, 768)):
        matrices = [torch.randn(outputs, inputs) for _ in range(max(1, 60_000_000 // (outputs * inputs)))]
        gigabytes = sum(matrix.numel() for matrix in matrices) * 4 / 1e9
        for positions in (1, 2, 3):
            x = torch.randn(positions, inputs)
            took = _ms(rounds, {
                "torch": lambda matrices=matrices, x=x: [F.linear(x, matrix) for matrix in matrices],
                "blocks": lambda matrices=matrices, x=x: [products.linear(x, matrix) for matrix in matrices],
                "sum": lambda matrices=matrices: [matrix.sum() for matrix in matrices],
            })  # fmt: skip
            of = f"products [{outputs}, {inputs}], {positions}"
            found |= {f"{of}, {name}, GB/s": 1e3 * gigabytes / ms for name, ms in took.items()}
    return found


@torch.no_grad()
def many_positions(rounds: int) -> dict[str, float]:
    """Milliseconds of a vocabulary."""
    found, matrix = {}, torch.randn(30592, 384)
    for positions in (8, 16, 64, 128, 256):
        x = torch.randn(positions, 384)
        took = _ms(rounds, {
            "torch": lambda x=x: F.linear(x, matrix), "blocks": lambda x=x: products.wide_linear(x, matrix)
        })  # fmt: skip
        found |= {f"products [30592, 384], {positions}, {name}, ms": ms for name, ms in took.items()}
    return found


@torch.no_grad()
def losses(rounds: int) -> dict[str, float]:
    """Milliseconds of the parts of a loss."""
    x, weight, targets = torch.randn(512, 128).bfloat16(), torch.randn(8192, 128).bfloat16(), torch.arange(512)
    logits, out = x @ weight.T, torch.empty(512, 8192, dtype=torch.bfloat16)
    took = _ms(rounds, {
        "product": lambda: torch.mm(x, weight.T, out=out),
        "log_softmax, all rows": lambda: logits.log_softmax(-1, dtype=torch.float32).gather(1, targets[:, None]),
        "measured, in the cache": lambda: loss._measure_fused(logits, targets, LossOptions()),
        "softmax in bf16": lambda: torch.softmax(logits, -1, out=out),
        "measured and made gradients": lambda: loss._into_slopes(logits, targets),
    })  # fmt: skip
    return {f"losses, {name}, ms": ms for name, ms in took.items()}


def muon_matrices(rounds: int) -> dict[str, float]:
    """Milliseconds of the matrices of a model."""
    found = {}
    for size in ("tiny", "mini"):
        shape = sized(size)
        d, layers = shape.width, shape.layers
        groups = [torch.randn(n, *of) for n, of in ((4 * layers, (d, d)), (layers, (4 * d, d)), (layers, (d, 4 * d)))]

        def work(least: float, groups: list[torch.Tensor] = groups) -> None:
            chosen, muon._LONG = muon._LONG, least
            for matrices in groups:
                muon.orthogonal(matrices)
            muon._LONG = chosen

        contenders: Contenders = {
            "plain": lambda work=work: work(100.0),
            "rows": lambda work=work: work(0.0),
            "chosen": lambda work=work: work(muon._LONG),
        }
        found |= {f"muon, {size}, {name}, ms": ms for name, ms in _ms(min(rounds, 7), contenders).items()}
    return found


@torch.no_grad()
def attention(rounds: int) -> dict[str, float]:
    """Milliseconds of one new position of some rows."""
    found = {}
    for rows, held in ((1, 64), (1, 300), (8, 160), (64, 160), (64, 300)):
        q, k, v = torch.randn(rows, 6, 1, 64), *(torch.randn(rows, 6, 320, 64)[:, :, :held] for _ in range(2))
        took = _ms(rounds, {
            "torch": lambda q=q, k=k, v=v: [F.scaled_dot_product_attention(q, k, v) for _ in range(10)],
            "products": lambda q=q, k=k, v=v: [torch.softmax(q @ k.mT / 8, -1) @ v for _ in range(10)],
        })  # fmt: skip
        found |= {f"attention, {rows} rows of {held}, {name}, ms": ms for name, ms in took.items()}
    return found


@torch.no_grad()
def layer(rounds: int) -> dict[str, float]:
    """Milliseconds of what follows attention."""
    found, one = {}, model.Layer(sized("mini")).eval()
    for positions in (1024, 4096, 8192):
        x, mixed = torch.randn(1, positions, 384), torch.randn(1, positions, 6, 64)
        took = _ms(rounds, {
            "at once": lambda x=x, mixed=mixed: model._after_attention(one, x, mixed),
            "in pieces": lambda x=x, mixed=mixed: model._in_pieces(one, x, mixed),
        })  # fmt: skip
        found |= {f"layer, {positions} positions, {name}, ms": ms for name, ms in took.items()}
    return found


def _ms(rounds: int, contenders: Contenders) -> dict[str, float]:
    """CPU milliseconds of each, the median over rounds behind one that warms up."""
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            began = time.process_time()
            work()
            if number:
                took[name].append(1e3 * (time.process_time() - began))
    return {name: statistics.median(several) for name, several in took.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
