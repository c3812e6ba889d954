"""docs/model.md keeps its word: its snippets run in their order, and its table of sizes is right."""

import re
from pathlib import Path

import pytest
import torch

from glm_model import GLM, SIZES, save_pretrained, sized
from glm_model.config import num_parameters
from glm_model.train import TrainStep

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "model.md").read_text()


def test_the_snippets_run(tmp_path, monkeypatch, tiny_tokenizer):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = GLM(sized("tiny", vocab_size=tiny_tokenizer.padded_vocab_size, positions=64))
    save_pretrained(model, "runs/mine/model", tokenizer=tiny_tokenizer)
    seen: dict = {}
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(snippets) == 11
    for snippet in snippets:
        exec(compile(snippet, "docs/model.md", "exec"), seen)
    assert len(seen["filled"].blanks) == 2
    assert seen["losses"][-1] < seen["losses"][0]
    exact = TrainStep(seen["fresh"], precision="fp32").eval()  # the page's own is bf16 on some machines
    sums, counts = zip(*(exact(seen[name]) for name in ("padded", "packed")), strict=True)
    assert counts[0].tolist() == counts[1].tolist() == [4]  # two blanks of one token and their ends
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-5, atol=1e-4)
    for name in ("padded", "packed"):
        torch.testing.assert_close(seen["step"](seen[name])[0], sums[0], rtol=2**-8, atol=0)
    assert seen["logits"].shape == (2, seen["width"], tiny_tokenizer.padded_vocab_size)
    means = {one.logprob / one.tokens: answer for one, answer in zip(seen["scores"], seen["answers"], strict=True)}
    assert len(means) == 3, "the answers can be told apart"
    assert seen["answers"][seen["best"]] == means[max(means)]


@pytest.mark.parametrize("name", SIZES)
def test_the_table_of_sizes(name):
    config = sized(name)
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    shape = (config.layers, config.width, config.heads, num_parameters(config))
    assert row == f"| {name} | " + " | ".join(f"{number:,}" for number in shape) + " |"
