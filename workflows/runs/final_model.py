"""What a run has trained: exported as a model folder with its card, and tried on a few blanks."""

import math
from typing import Any

import torch
from safetensors import SafetensorError

from glm_model import GLM, fill, from_pretrained, save_pretrained
from glm_model.tokenizer import Tokenizer
from infra import checkpoint, tracking
from infra.errors import InfrastructureError
from pipelines.store.format import TokenStore
from pipelines.views import render
from workflows.runs import tracked
from workflows.runs.run import Run
from workflows.runs.setup import Setup

_PROMPTS = 3


def export(setup: Setup, run: Run, handle: tracking.RunHandle) -> dict[str, float]:
    """Write the last checkpoint's weights as a model that `GLM.from_pretrained` reads, also as an artifact of the run;
    where the run ended early, the best checkpoint's. Returns what validation said of it.

    Raises InfrastructureError where it cannot be written.
    """
    chosen = checkpoint.latest(run.checkpoints_url)
    assert chosen is not None, "a finished run has a checkpoint"
    if chosen.step < setup.budget.steps:
        chosen = checkpoint.best(run.checkpoints_url) or chosen
    loaded = checkpoint.load(chosen.url)
    model = GLM(setup.shape)
    model.load_state_dict(loaded.model)
    try:
        save_pretrained(model, run.model_url, tokenizer=setup.tokenizer, card=_card(setup, run, loaded.state))
    except (OSError, SafetensorError) as error:
        raise InfrastructureError(
            f"cannot write {run.model_url}: {error}",
            try_="free space or fix access, then run the same command: the training is done and only this is left",
        ) from error
    tracked.record_model(handle, run.record, run.url)
    return loaded.state["validated"]


def fill_examples(setup: Setup, run: Run) -> None:
    """Fill blanks of a few held-out texts on screen, with the exported model."""
    screen = setup.screen
    model, tokenizer = from_pretrained(run.model_url), Tokenizer.load(run.model_url)
    model.eval()
    screen.line()
    screen.line("The model fills blanks of texts it has not seen:")
    for text in _prompts(setup.store, tokenizer):
        with torch.no_grad():
            filled = fill(model, tokenizer, text, max_tokens=12)
        screen.rich.print(render.filled(filled.parts, around=("[", "]")), soft_wrap=True)


def _prompts(store: TokenStore, tokenizer: Tokenizer) -> list[str]:
    """Short held-out passages with one blank of two or three words each."""
    prompts: list[str] = []
    if store.validation.rows == 0:
        return ["Ray is a [MASK] for [MASK]."]
    rows = store.validation.read_group(0)
    for index in range(len(rows.ids)):
        text = tokenizer.decode(rows.tokens[rows.offsets[index] : rows.offsets[index + 1]])
        words = text.split()[:24]
        if len(words) == 24 and sum(word.strip(".,;:!?()'\"").isalpha() for word in words) > 20:  # prose, no table
            prompts.append(" ".join([*words[:12], "[MASK]", *words[14:]]))
        if len(prompts) == _PROMPTS:
            break
    return prompts or ["Ray is a [MASK] for [MASK]."]


def _card(setup: Setup, run: Run, state: dict[str, Any]) -> str:
    """A model card with lineage: run, step, store, tokenizer, sources."""
    store = setup.store
    sources = "\n".join(
        f"- {s.name}: {s.kept:,} of {s.read:,} documents kept, {s.num_bytes:,} bytes" for s in store.manifest.sources
    )
    validated = state["validated"]
    init_from = setup.recipe.model.init_from
    score = validated.get("val/bits_per_byte", math.nan)
    return f"""# {run.name}

A GLM (General Language Model, Du et al., ACL 2022) pretrained by autoregressive blank infilling.

| | |
|---|---|
| weights | {f"begun with those of {init_from}" if init_from else "drawn at random"} |
| step | {state["step"]:,} |
| validation | {score:.4f} bits per byte at step {validated.get("step", 0):,} |
| token store | `{store.digest}` |
| tokenizer | `{store.manifest.tokenizer_digest}` |
| settings | `{run.record.identity}` |

Trained on:

{sources}

```python
from glm_model import Tokenizer, fill, from_pretrained

model, tokenizer = from_pretrained("<this folder>"), Tokenizer.load("<this folder>")
print(fill(model, tokenizer, "Ray is a [MASK] for [MASK].").text)
```
"""
