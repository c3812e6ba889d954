"""The benchmarks of writing do what they say: a masked model is told its lengths, and sees nothing but its own text."""

import gzip
import json
import random
import sys

import numpy as np
import pytest
import torch
from helpers import benchmark_modules
from helpers.small import WORDS

from glm_model import GLM, GLMConfig, save_pretrained
from glm_model.layout import Prompt

MASK = 3


@pytest.fixture(scope="module")
def masked():
    return benchmark_modules.load("_masked")


@pytest.fixture(scope="module")
def writing():
    return benchmark_modules.load("writing")


@pytest.fixture(scope="module")
def model() -> GLM:
    torch.manual_seed(0)
    return GLM(small_shape()).eval()


def small_shape() -> GLMConfig:
    return GLMConfig(layers=2, width=32, heads=2, vocab_size=128, positions=64, dropout=0.0, attention_dropout=0.0)


def prompt(*tokens: int) -> Prompt:
    return Prompt(np.array(tokens), np.flatnonzero(np.array(tokens) == MASK))


def test_a_blank_becomes_as_many_masks_as_it_has_tokens_each_predicted_where_it_stands(masked):
    example = masked.in_place(prompt(2, 9, MASK, 8, MASK), [np.array([5, 6]), np.array([7])])
    found = {name: array.tolist() for name, array in example.arrays().items()}
    assert found == {
        "tokens": [2, 9, MASK, MASK, 8, MASK],
        "targets": [0, 0, 5, 6, 0, 7],
        "position_ids": [0, 1, 2, 3, 4, 5],
        "block_position_ids": [0] * 6,
        "loss_mask": [0, 0, 1, 1, 0, 1],
        "segment_ids": [0] * 6,
        "context_end": [6] * 6,
        "objective_ids": [0] * 6,
    }


def test_examples_that_are_packed_see_nothing_of_each_other(masked, model):
    examples = [
        masked.in_place(prompt(2, 9, MASK, 8), [np.array([5, 6])]),
        masked.in_place(prompt(2, MASK, 11), [np.array([7])]),
    ]
    inputs = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
    together, alone = masked.packed(examples), [masked.packed([one]) for one in examples]
    logits = [model(*(batch[name] for name in inputs))[0] for batch in (together, *alone)]
    torch.testing.assert_close(logits[0], torch.cat(logits[1:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("order", ["left to right", "most confident first"])
def test_each_token_is_the_likeliest_one_given_all_that_was_written_before(masked, model, order):
    prompts, sizes = [prompt(2, 9, MASK, 8, MASK, 10), prompt(2, MASK, 11)], [[3, 2], [4]]
    banned = [0, 1, 2, MASK, 4]
    found = masked.fill_masked(model, prompts, sizes, order=order, banned=banned)
    for one, several, written in zip(prompts, sizes, found, strict=True):
        tokens, is_open = masked.widened(one, several)
        row, wanted = torch.from_numpy(tokens.copy())[None], is_open.copy()
        while is_open.any():
            with torch.no_grad():
                probs = model(row, torch.arange(len(tokens))[None], torch.zeros_like(row))[0].softmax(1)
            probs[:, banned] = 0
            places = np.flatnonzero(is_open)
            place = places[0] if order == "left to right" else places[int(probs[places].amax(1).argmax())]
            row[0, place], is_open[place] = probs[place].argmax(), False
        assert [part.tolist() for part in written] == [
            part.tolist() for part in np.split(row[0].numpy()[wanted], np.cumsum(several)[:-1])
        ]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_blank_lengths_are_measured_and_kept_models_are_not_trained_again(
    tmp_path, tiny_tokenizer, monkeypatch, capsys
):
    torch.manual_seed(0)
    save_pretrained(GLM(small_shape()), str(tmp_path / "begin"), tokenizer=tiny_tokenizer)
    data, draws = tmp_path / "data" / "infilling" / "yahoo", random.Random(0)
    data.mkdir(parents=True)
    for name in ("val.txt.gz", "test.first_half.txt.gz"):
        lines = [" ".join(draws.choices(WORDS, k=12)) for _ in range(12)]
        data.joinpath(name).write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    module, report, plot = benchmark_modules.load("blank_lengths"), tmp_path / "found.json", tmp_path / "found.svg"
    begin = [f"--glm={tmp_path}/begin", f"--masked={tmp_path}/begin", f"--to={tmp_path}/to"]
    sizes = ["--texts=12", "--asked=12", "--steps=2", f"--data={tmp_path}/data", f"--json={report}", f"--plot={plot}"]
    monkeypatch.setattr(sys, "argv", ["blank_lengths.py", *begin, *sizes])
    module.main()
    first = json.loads(report.read_text())["values"]
    assert "masked step 1" in capsys.readouterr().err
    module.main()
    assert json.loads(report.read_text())["values"] == first
    assert "masked step 1" not in capsys.readouterr().err
    assert {value for name, value in first.items() if "true lengths" in name and "right_length" in name} == {100.0}
    assert plot.read_text().startswith("<?xml")


def test_the_first_rows_that_are_short_enough_are_taken(writing, tmp_path):
    (tmp_path / "a.txt").write_text("one two\none two three\n\none\nlast one\n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress((tmp_path / "a.txt").read_bytes()))
    for name in ("a.txt", "a.txt.gz"):
        assert writing.first_rows(tmp_path / name, 3, most_words=2) == ["one two", "", "one"]
        assert writing.first_rows(tmp_path / name, 2) == ["one two", "one two three"]


def test_a_table_has_models_and_baselines_and_the_fall_of_bits(writing):
    task = next(one for one in writing.TASKS if one.name == "infilling")
    scores = [
        {
            "model": f"m{n}",
            "metric": metric,
            "value": value + n,
            "one_answer": {"unigram": 4.0} if metric[0] == "e" else {},
        }
        for n in range(2)
        for metric, value in (("exact_match", 10.0), ("bits_per_byte", 2.0))
    ]
    rows = {"pretrained": writing._means(scores, {"m0", "m1"})} | writing._baselines(scores)
    assert writing.table(task, writing.Found(rows, 12.5, 10.0, 15.0)) == [
        "| infilling | `exact_match` | `bits_per_byte` |",
        "|---|---|---|",
        "| pretrained | 10.5 | 2.500 |",
        "| unigram | 4.0 |  |",
        "",
        "fall of bits_per_byte: 12.5 % (10.0 to 15.0)",
    ]
