"""Around training: show what the model is asked, export what it became, and let it fill a few blanks."""

import math
from typing import Any

import torch
from safetensors import SafetensorError

from glm_model import GLM, GLMConfig, fill, from_pretrained, save_pretrained
from glm_model.tokenizer import Tokenizer
from infra import checkpoint, tracking
from infra.console import Console
from infra.errors import InfrastructureError
from pipelines.store.format import TokenStore
from pipelines.views import render
from workflows.runs import run as runs

_PROMPTS = 3


def export(
    run: runs.Run, opened: TokenStore, tokenizer: Tokenizer, shape: GLMConfig, handle: tracking.RunHandle
) -> dict[str, float]:
    """The last checkpoint's weights as a model that `GLM.from_pretrained` reads, or where the run ended early the best
    one's; also an artifact of the run. Returns what validation said of it.
    """
    found = checkpoint.latest(run.checkpoints_url)
    assert found is not None, "a finished run has a checkpoint"
    if found.step < run.record["steps"]:
        found = checkpoint.best(run.checkpoints_url) or found
    loaded = checkpoint.load(found.url)
    model = GLM(shape)
    model.load_state_dict(loaded.model)
    card = _card(run, opened, loaded.state)
    try:
        save_pretrained(model, run.model_url, tokenizer=tokenizer, card=card)
    except (OSError, SafetensorError) as error:
        raise InfrastructureError(
            f"cannot write {run.model_url}: {error}",
            try_="free space or fix access, then the same command again: the training is done and only this is left",
        ) from error
    tracking.log_artifact_dir(handle, run.model_url, "model")
    return loaded.state["validated"]


def fill_examples(model_url: str, opened: TokenStore, screen: Console) -> None:
    """Fill blanks of a few held-out texts on screen."""
    model, tokenizer = from_pretrained(model_url), Tokenizer.load(model_url)
    model.eval()
    screen.line()
    screen.line("The model fills blanks of texts it has not seen:")
    for text in _prompts(opened, tokenizer):
        with torch.no_grad():
            filled = fill(model, tokenizer, text, max_tokens=12)
        screen.rich.print(render.filled(filled.parts, around=("[", "]")), soft_wrap=True)


def _prompts(opened: TokenStore, tokenizer: Tokenizer) -> list[str]:
    """Short held-out passages with one blank of two or three words each."""
    prompts: list[str] = []
    if opened.validation.rows == 0:
        return ["Ray is a [MASK] for [MASK]."]
    rows = opened.validation.read_group(0)
    for index in range(len(rows.ids)):
        text = tokenizer.decode(rows.tokens[rows.offsets[index] : rows.offsets[index + 1]])
        words = text.split()[:24]
        if len(words) == 24 and sum(word.strip(".,;:!?()'\"").isalpha() for word in words) > 20:  # prose, no table
            prompts.append(" ".join([*words[:12], "[MASK]", *words[14:]]))
        if len(prompts) == _PROMPTS:
            break
    return prompts or ["Ray is a [MASK] for [MASK]."]


def _card(run: runs.Run, opened: TokenStore, state: dict[str, Any]) -> str:
    """A model card with lineage: run, step, store, tokenizer, sources."""
    sources = "\n".join(
        f"- {s['name']}: {s['kept']:,} of {s['read']:,} documents kept, {s['num_bytes']:,} bytes"
        for s in opened.manifest["sources"]
    )
    validated = state["validated"]
    init_from = run.record["settings"].get("model.init_from", "null")
    score = validated.get("val/bits_per_byte", math.nan)
    return f"""# {run.name}

A GLM (General Language Model, Du et al., ACL 2022) pretrained by autoregressive blank infilling.

| | |
|---|---|
| weights | {"drawn anew" if init_from == "null" else f"begun with those of {init_from}"} |
| step | {state["step"]:,} |
| validation | {score:.4f} bits per byte at step {validated.get("step", 0):,} |
| token store | `{opened.digest}` |
| tokenizer | `{opened.manifest["tokenizer_digest"]}` |
| settings | `{run.identity}` |

Trained on:

{sources}

```python
from glm_model import Tokenizer, fill, from_pretrained

model, tokenizer = from_pretrained("<this folder>"), Tokenizer.load("<this folder>")
print(fill(model, tokenizer, "Ray is a [MASK] for [MASK].").text)
```
"""
