"""Validation figures against values computed by hand: models that give every token a known probability."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small

from glm_model import GLM, GLMConfig
from glm_model.train import TrainStep
from pipelines.corpus import ledger
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.records import buckets_of
from pipelines.feed.examples import draw_epoch
from pipelines.ragged import Blanks, RowBatch
from pipelines.selection.dropped import SelectedText
from pipelines.store import format
from pipelines.store.held_out import Cuts
from pipelines.store.manifest import Manifest
from pipelines.store.shards import ShardJob, build_shard
from pipelines.store.unknown import count_unknown
from workflows.training.engine import Place
from workflows.training.ranks import Ranks
from workflows.training.validation import Validation, blank_bytes, validate, validation_of

VOCABULARY = 64  # so a token costs log2 64 = 6 bits where all are equally probable
# 7 text tokens in 23 bytes, and 3 in 7; [CLS] before and eos behind each.
TEXTS = ["the cat sat on the mat.", "你好."]
WHOLE_TEXT = {"document": {"min_ratio": 1.0, "suffix_share": 0.0}}


@pytest.fixture(scope="module")
def two_texts(tmp_path_factory, tiny_tokenizer) -> format.TokenStore:
    """A store whose validation rows hold the two texts and nothing else."""
    return held_out(tmp_path_factory.mktemp("two"), tiny_tokenizer, {"texts": TEXTS})


def held_out(
    folder: Path, tokenizer, texts: dict[str, list[str]], *, unknown: dict[str, int] | None = None
) -> format.TokenStore:
    """texts: by their source. unknown: bytes that have to be found unknown, by source."""
    url, text_url = str(folder / "store"), str(folder / "text")
    units = []
    for number, (source, own) in enumerate(texts.items()):
        files = small.corpus(folder / f"raw-{number}", own, source=source)
        unit = small.clean_unit(files, CleanConfig("off"), f"{text_url}/{number:016x}")
        assert (unit.kept, unit.dropped) == (len(own), {})
        units.append(unit)
    tokenizer.save(url)
    cuts = Cuts({"train": {}, "validation": dict.fromkeys(texts, (0, 2**64 - 1))}, tails={})
    settings, shards = small.settings(), {}
    for split in ("train", "validation"):
        job = ShardJob(split, "shard-00000", buckets_of(units))
        built = build_shard(job, cuts, settings, text=SelectedText(text_url, None), store_url=url)
        shards[split] = [built.shard]
        assert built.unknown_bytes == ((unknown or {}) if split == "validation" else {})
    shards["test"] = []
    balance = count_unknown(ledger.balance(units), [built], limit=1.0, trained=True)
    manifest = Manifest(
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        dtype=format.token_dtype(tokenizer.vocab_size).str,
        settings=asdict(settings),
        documents=balance.documents,
        sources=balance.sources,
    )
    format.publish(url, manifest, shards)
    return format.TokenStore.open(url)


def unigram(probabilities: dict[int, float], *, num_objectives: int = 1) -> TrainStep:
    """A model that gives some tokens a probability wherever they stand, and shares the rest out evenly."""
    rest = (1 - sum(probabilities.values())) / (VOCABULARY - len(probabilities))
    p = torch.full((VOCABULARY,), rest)
    p[list(probabilities)] = torch.tensor(list(probabilities.values()))
    model = GLM(GLMConfig(layers=1, width=8, heads=1, vocab_size=VOCABULARY, positions=64))
    with torch.no_grad():
        model.token_embedding.weight.zero_()
        model.token_embedding.weight[:, 0] = p.log()
        model.final_norm.weight.zero_()
        model.final_norm.bias.copy_(torch.eye(8)[0])
    return TrainStep(model, num_objectives=num_objectives, precision="fp32")


def asked(opened: format.TokenStore, tokenizer, *, rows: int = 99, micro_rows: int = 2, **config) -> Validation:
    settings = small.settings_of(opened, tokenizer, split="validation", **config)
    return validation_of(opened, settings, config.get("mask_tokens", "task"), rows=rows, micro_rows=micro_rows)


def measure(step: TrainStep, given: Validation) -> dict[str, float]:
    place = Place(Ranks(0, 1, torch.device("cpu")), "fp32", False, lambda: None)
    return validate(step, given, place)


def test_equal_probabilities_cost_6_bits_a_target(two_texts, tiny_tokenizer):
    given = asked(two_texts, tiny_tokenizer, mixture={"document": 1.0}, settings=WHOLE_TEXT)
    metrics = measure(unigram({}), given)
    assert metrics == pytest.approx(
        {
            # One blank of each whole text and its [eop]: 8 + 4 targets; in the unidirectional form also eos: 9 + 5.
            "val/bits_per_byte_document": 12 * 6 / 30,
            "val/bits_per_byte": 14 * 6 / 30,
            "val/loss_document": math.log(64),
            "val/loss": math.log(64),
        },
        rel=1e-5,
    )


def test_each_target_costs_its_own_bits(two_texts, tiny_tokenizer):
    the, eop = tiny_tokenizer.encode("the")[0], tiny_tokenizer.special.eop
    given = asked(two_texts, tiny_tokenizer, mixture={"document": 1.0}, settings=WHOLE_TEXT)
    metrics = measure(unigram({int(the): 1 / 2, eop: 1 / 4}), given)
    other = math.log2(62 / (1 / 4))
    # `the` twice, [eop] twice, and 8 others: 5 + 3 words and signs; eos makes them 10.
    assert metrics["val/bits_per_byte_document"] == pytest.approx((2 * 1 + 2 * 2 + 8 * other) / 30, rel=1e-5)
    assert metrics["val/bits_per_byte"] == pytest.approx((2 * 1 + 2 * 2 + 10 * other) / 30, rel=1e-5)


def test_a_part_of_a_text_has_its_share_of_the_bytes(two_texts, tiny_tokenizer):
    """With half of the text blanked: 4 of 7 tokens and 2 of 3, in one blank each."""
    half = {"document": {"min_ratio": 0.5, "suffix_share": 0.0}}
    given = asked(two_texts, tiny_tokenizer, mixture={"document": 1.0}, settings=half)
    rows = two_texts.validation.read_group(0)
    blanks = draw_epoch(rows, given.blanks.settings, 0)
    sizes = {int(n): int(end - start) for n, (start, end) in zip(np.diff(rows.offsets), blanks.spans, strict=True)}
    long, short = sizes[9], sizes[5]
    metrics = measure(unigram({}), given)
    expected = (long + 1 + short + 1) * 6 / (23 * long / 7 + 7 * short / 3)
    assert metrics["val/bits_per_byte_document"] == pytest.approx(expected, rel=1e-5)


def test_each_byte_behind_unk_costs_8_bits_besides(tmp_path, tiny_tokenizer):
    """`☃ ☃☃` is 10 bytes of 17 and two [UNK]: to know nothing must not be cheap."""
    store = held_out(tmp_path, tiny_tokenizer, {"a": ["the cat ☃ ☃☃."]}, unknown={"a": 9})
    given = asked(store, tiny_tokenizer, mixture={"document": 1.0}, settings=WHOLE_TEXT)
    metrics = measure(unigram({}), given)
    num_bytes = len("the cat ☃ ☃☃.".encode())
    assert metrics["val/bits_per_byte"] == pytest.approx((7 * 6 + 9 * 8) / num_bytes, rel=1e-5)
    assert metrics["val/bits_per_byte_document"] == pytest.approx((6 * 6 + 9 * 8) / num_bytes, rel=1e-5)
    assert metrics["val/loss"] == pytest.approx(math.log(64), rel=1e-5), "what the model is trained on"


def test_unknown_bytes_are_charged_to_their_source(tmp_path, tiny_tokenizer):
    texts = {"known": ["the cat sat on a mat."], "unknown": ["the ☃ sat."]}
    store = held_out(tmp_path, tiny_tokenizer, texts, unknown={"unknown": 3})
    metrics = measure(unigram({}), asked(store, tiny_tokenizer, mixture={"document": 1.0}, settings=WHOLE_TEXT))
    assert metrics["val/known/bits_per_byte"] == pytest.approx(9 * 6 / 21, rel=1e-5)
    assert metrics["val/unknown/bits_per_byte"] == pytest.approx((6 * 6 + 3 * 8) / 12, rel=1e-5)
    assert metrics["val/bits_per_byte"] == pytest.approx((15 * 6 + 3 * 8) / 33, rel=1e-5)


def test_bytes_of_blanks_are_the_segments_by_their_share_of_its_text():
    """[CLS] and eos (0) are not text."""
    rows = RowBatch(
        np.array([1, 20, 21, 22, 23, 0, 1, 30, 31]),
        np.array([0, 6, 9]),
        np.arange(2),
        np.array([40, 10]),
        np.array([0, 2]),
    )
    both = np.zeros(2, np.uint8)
    drawn = Blanks(both, np.array([(1, 2), (3, 5), (2, 3)]), np.array([0, 2, 3]))
    assert blank_bytes(rows, drawn, eos=0).tolist() == [40 * 3 / 4, 10 * 1 / 2]
    drawn = Blanks(both, np.array([(3, 6), (1, 3)]), np.array([0, 1, 2]))
    assert blank_bytes(rows, drawn, eos=0).tolist() == [40 * 2 / 4, 10.0]


def test_each_source_is_told(tmp_path, tiny_tokenizer):
    """One source is all `the`, which the model finds likely; the other has none."""
    the = int(tiny_tokenizer.encode("the")[0])
    texts = {"all/the": ["the the the the the the the the."], "other": ["a cat sat on a mat."]}
    opened = held_out(tmp_path, tiny_tokenizer, texts)
    given = asked(opened, tiny_tokenizer, mixture={"document": 1.0}, settings=WHOLE_TEXT)
    metrics = measure(unigram({the: 1 / 2}), given)
    other = math.log2(63 / (1 / 2))
    # Bits of 8 `the` and 3 others (full stop, eos, [eop]) in 32 bytes; of 9 others in 19 bytes.
    assert metrics["val/all_the/bits_per_byte"] == pytest.approx((8 + 3 * other) / 32, rel=1e-5)
    assert metrics["val/other/bits_per_byte"] == pytest.approx(9 * other / 19, rel=1e-5)
    assert metrics["val/bits_per_byte"] == pytest.approx((8 + 12 * other) / 51, rel=1e-5)
    # The blank of the whole text has no eos.
    assert metrics["val/all_the/loss"] == pytest.approx(math.log(2) * (8 + 2 * other) / 10, rel=1e-5)
    assert metrics["val/other/loss"] == pytest.approx(math.log(2) * other, rel=1e-5)


def test_a_mixture_is_told_per_objective_and_by_its_shares(tiny_store, tiny_tokenizer):
    given = asked(tiny_store, tiny_tokenizer)
    mixture = given.blanks.settings.mixture
    targets, num_bytes, text_targets, text_bytes = dict.fromkeys(mixture.names, 0), {}, 0, 0
    for group in range(len(tiny_store.validation.group_rows)):
        rows = tiny_store.validation.read_group(group)
        blanks = draw_epoch(rows, given.blanks.settings, 0)
        for i in range(len(rows.ids)):
            segment = rows.tokens[rows.offsets[i] : rows.offsets[i + 1]]
            has_eos = segment[-1] == tiny_tokenizer.special.eos
            length = len(segment) - 1 - has_eos
            name = mixture.names[blanks.objective[i]]
            spans = blanks.spans[blanks.span_offsets[i] : blanks.span_offsets[i + 1]]
            blanked = sum(min(end, length + 1) - start for start, end in spans)
            targets[name] += sum(end - start + 1 for start, end in spans)
            num_bytes[name] = num_bytes.get(name, 0) + rows.num_bytes[i] * blanked / length
            text_targets += len(segment)  # without [CLS], with [eop]
            text_bytes += rows.num_bytes[i]
    assert set(num_bytes) == {"token", "sentence", "document"}
    metrics = measure(unigram({}, num_objectives=3), given)
    assert metrics == pytest.approx(
        {f"val/bits_per_byte_{name}": targets[name] * 6 / num_bytes[name] for name in mixture.names}
        | {f"val/loss_{name}": math.log(64) for name in mixture.names}
        | {"val/loss": math.log(64), "val/bits_per_byte": text_targets * 6 / text_bytes},
        rel=1e-5,
    )


def test_the_figures_do_not_depend_on_how_rows_are_taken_together(tiny_store, tiny_tokenizer):
    step = unigram({5: 0.3, 6: 0.2}, num_objectives=3)
    whole = measure(step, asked(tiny_store, tiny_tokenizer, micro_rows=99))
    assert measure(step, asked(tiny_store, tiny_tokenizer, micro_rows=1)) == pytest.approx(whole, rel=1e-5)
    assert measure(step, asked(tiny_store, tiny_tokenizer, rows=1)) != pytest.approx(whole, rel=1e-5)


def test_the_model_is_left_in_the_mode_in_which_it_was(two_texts, tiny_tokenizer):
    given = asked(two_texts, tiny_tokenizer, mixture={"document": 1.0})
    for training in (True, False):
        step = unigram({}).train(training)
        measure(step, given)
        assert step.training is training
