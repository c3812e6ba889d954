"""One side of `generate.py --sides`: a process that writes a batch of texts whenever it reads a line.

Run by generate.py, with PYTHONPATH saying whose `glm_model` it is:

    python benchmarks/_batch_writers.py glm|dynamic|static SHAPE_AND_BATCH_AS_JSON

The first line that it prints is {"version"}, or {"left_out"}; each further one {"cpu_s", "tokens"}. It imports nothing
of ours but `glm_model`, and for transformers not that.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

CLS, MASK, SOP = 1, 2, 5


def main() -> None:
    side, settings = sys.argv[1], json.loads(sys.argv[2])
    try:
        version, write = _glm(settings) if side == "glm" else _transformers(settings, side)
    except ImportError as error:
        print(json.dumps({"left_out": str(error)}), flush=True)
        return
    print(json.dumps({"version": version}), flush=True)
    for _ in sys.stdin:
        before = time.process_time()
        tokens = write()
        print(json.dumps({"cpu_s": time.process_time() - before, "tokens": tokens}), flush=True)


def contexts(settings: dict[str, Any]) -> list[list[int]]:
    """Ids of each text: lengths drawn uniformly, whichever side they are for."""
    draw = random.Random(0)
    lengths = [draw.randint(settings["shortest"], settings["longest"]) for _ in range(settings["texts"])]
    return [[CLS, *(draw.randrange(100, settings["vocab_size"]) for _ in range(length - 1))] for length in lengths]


def _glm(settings: dict[str, Any]) -> tuple[str, Callable[[], int]]:
    import numpy as np
    import torch

    from glm_model import GLM, Decoding, GLMConfig, layout

    torch.manual_seed(0)
    model = GLM(GLMConfig(**{name: settings[name] for name in ("layers", "width", "heads", "vocab_size")})).eval()
    if settings["precision"] == "bf16":
        model.bfloat16()
    prompts = [layout.prompt(np.array([*ids[:-1], MASK]), masks=(MASK,)) for ids in contexts(settings)]
    decoding = Decoding(max_tokens=settings["new"])
    try:  # as c1f8ea3 has it
        from glm_model.generate import fill_tokens  # pyright: ignore[reportMissingImports]

        written = lambda: fill_tokens(model, prompts, decoding, sop=SOP, stop=())  # noqa: E731
    except ImportError:
        from glm_model.generation.fill import fill_tokens
        from glm_model.generation.sampling import Limits

        written = lambda: fill_tokens(model, prompts, decoding, Limits(sop=SOP, stop=()))  # noqa: E731
    return "", lambda: sum(len(blank.tokens) for samples in written() for (blank,) in samples)


def _transformers(settings: dict[str, Any], cache: str) -> tuple[str, Callable[[], int]]:
    """GPT-2 of equal shape; texts are padded on the left, as it asks for. cache: dynamic or static."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    shape = {"n_layer": settings["layers"], "n_embd": settings["width"], "n_head": settings["heads"]}
    config = transformers.GPT2Config(vocab_size=settings["vocab_size"], n_positions=1024, **shape)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.generation_config.eos_token_id = None  # nothing ends a text early
    texts = contexts(settings)
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    seen = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    how = transformers.GenerationConfig(
        max_new_tokens=settings["new"],
        min_new_tokens=settings["new"],
        do_sample=False,
        pad_token_id=0,
        cache_implementation=None if cache == "dynamic" else cache,
        disable_compile=True,
    )

    def write() -> int:
        with torch.inference_mode():
            found = model.generate(ids, attention_mask=seen, generation_config=how)
        return (found.shape[1] - longest) * len(texts)

    return transformers.__version__, write


if __name__ == "__main__":
    main()
