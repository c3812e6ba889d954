"""What a run has trained, exported as a model folder with its card."""

import math
from typing import Any

from safetensors import SafetensorError

from glm_model import GLM, save_pretrained
from infra import checkpoint, tracking
from infra.checkpoint import Checkpoint
from infra.errors import InfrastructureError
from workflows.runs import tracked
from workflows.runs.run import Run
from workflows.runs.setup import Setup


def export(setup: Setup, run: Run, handle: tracking.RunHandle) -> dict[str, float]:
    """Write the weights as a model that `from_pretrained` reads, also as an artifact of the run. Returns what
    validation said of them.

    Raises InfrastructureError where it cannot be written.
    """
    loaded = checkpoint.load(chosen(setup, run).url)
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


def chosen(setup: Setup, run: Run) -> Checkpoint:
    """The checkpoint whose weights are the run's model: the last, or where the run ended early, the best."""
    found = checkpoint.latest(run.checkpoints_url)
    assert found is not None, "a finished run has a checkpoint"
    return found if found.step == setup.budget.steps else checkpoint.best(run.checkpoints_url) or found


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
