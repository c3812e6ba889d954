"""predict.py does what Python does (law 21): each kind gives a row what a function of `glm_model` gives its text."""

import copy
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import asked

from glm_model import GLM, Classifier, fill, layout, save_pretrained, score
from glm_model.generation.scoring import score_text, text_windows
from pipelines.questions.config import GenerationConfig, TaskConfig

TEXTS = ["the cat sat on a mat", "dog ran home", "go then", "a mat said the dog ran home then the cat"]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer) -> str:
    return asked.model_folder(tmp_path_factory.mktemp("models") / "plain", tiny_tokenizer)


@pytest.fixture(scope="module")
def glm(model) -> GLM:
    return GLM.from_pretrained(model)


def table(folder) -> pa.Table:
    return pq.read_table(folder / "out")


def test_fill_writes_into_every_mask(run, tmp_path, glm, tiny_tokenizer):
    texts = ["the [MASK] sat on [MASK]", "a cat [MASK].", "dog [gMASK]", "no mask", "", "go " * 60 + "[MASK]"]
    asked.write(tmp_path / "in.jsonl", [{"n": n, "body": text} for n, text in enumerate(texts)])
    argv = ("--input=in.jsonl", "--text=body", "--max_bad=1", "--decoding.max_tokens=5", "--batch_positions=30")
    code, out, err = run("--kind=fill", *argv)
    assert (code, err) == (0, "")
    found = table(tmp_path)
    assert found.column_names == ["n", "body", "filled", "blanks", "logprob", "tokens_cut", "reason"]
    assert found["body"].to_pylist() == texts
    for row, text in zip(found.to_pylist()[:3], texts, strict=False):
        alone = fill(glm, tiny_tokenizer, text, max_tokens=5)
        assert row["filled"] == alone.text
        assert row["blanks"] == [blank.text for blank in alone.blanks]
        assert row["logprob"] == pytest.approx(alone.logprob, abs=1e-4)
    assert found["filled"].to_pylist()[3:] == [None] * 3
    assert [reason and reason.partition(": ")[2][:30] for reason in found["reason"].to_pylist()] == [
        *[None] * 3, "the text has no masks: expecte", "the column 'body' is empty", "63 tokens, and the model has 4"
    ]  # fmt: skip
    assert "3 without an answer" in out


def test_fill_takes_a_pattern_and_draws_by_its_seed(run, tmp_path, glm, tiny_tokenizer):
    asked.write(tmp_path / "in.jsonl", [{"one": "the cat", "two": "home"}, {"one": "a [MASK]", "two": "mat"}])
    how = ("--decoding.max_tokens=4", "--decoding.temperature=0.9", "--decoding.seed=3")
    assert run("--kind=fill", "--input=in.jsonl", "--pattern={one~} {mask} {two}", *how)[0] == 0
    shown = ["the cat [MASK] home", "a [ MASK] [MASK] mat"]
    options = {"max_tokens": 4, "temperature": 0.9, "seed": 3}
    assert table(tmp_path)["filled"].to_pylist() == [fill(glm, tiny_tokenizer, text, **options).text for text in shown]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "columns", "pattern"])
def test_choose_takes_candidates_of_every_row(run, tmp_path, glm, tiny_tokenizer, form):
    texts = ["the [MASK] sat", "a [MASK] ran home", "go [MASK]"]
    candidates = [["cat", "dog"], ["dog", "the cat"], ["home", "then"]]
    rows = [{"text": text, "of": several} for text, several in zip(texts, candidates, strict=True)]
    argv: tuple[str, ...] = ("--candidates=[of]",)
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    elif form == "jsonl":
        asked.write(tmp_path / "in.jsonl", rows)
    else:
        rows = [
            {"text": row["text"], "first": row["of"][0], "second": row["of"][1], "start": row["text"].partition(" ")[0]}
            for row in rows
        ]
        asked.write(tmp_path / "in.jsonl", rows)
        argv = ("--candidates=[first, second]",)
    if form == "pattern":
        argv = (*argv, "--pattern={start} {mask}")
        texts = [f"{text.partition(' ')[0]} [MASK]" for text in texts]
    code, _, err = run("--kind=choose", f"--input=in.{'parquet' if form == 'parquet' else 'jsonl'}", *argv)
    assert (code, err) == (0, "")
    for row, text, several in zip(table(tmp_path).to_pylist(), texts, candidates, strict=True):
        single = all(len(tiny_tokenizer.encode(one)) == 1 for one in several)  # the end counts behind longer ones
        scores = [one.logprob for one in score(glm, tiny_tokenizer, text, several, count_end=not single)]
        assert row["logprobs"] == pytest.approx(scores, abs=1e-5)
        assert row["choice_number"] == int(np.argmax(scores))
        assert row["choice"] == several[row["choice_number"]]


def test_choose_says_what_is_wrong_with_candidates(run, tmp_path):
    rows = [
        {"text": "the [MASK]", "of": ["cat", "dog"]},
        {"text": "the [MASK]", "of": "cat"},
        {"text": "the [MASK]", "of": []},
        {"text": "the [MASK]", "of": ["cat", " "]},
        {"text": "the [MASK]", "of": ["cat", 5]},
        {"text": "the [MASK]", "of": None},
        {"text": "the cat", "of": ["cat", "dog"]},
        {"text": "the [MASK] [MASK]", "of": ["cat", "dog"]},
        {"text": None, "of": ["cat", "dog"]},
        {"of": ["cat", "dog"]},
    ]
    asked.write(tmp_path / "in.jsonl", rows)
    assert run("--kind=choose", "--input=in.jsonl", "--candidates=[of]", "--max_bad=1")[0] == 0
    reasons = [reason and reason.partition(": ")[2] for reason in table(tmp_path)["reason"].to_pylist()]
    assert reasons == [
        None,
        "the column 'of': expected a list of candidates, got 'cat'",
        "no candidates",
        "a candidate in 'of' is empty",
        None,
        "the column 'of': expected a list of candidates, got ''",
        "the text has no masks: expected one [MASK], where the model writes",
        "the text has 2 masks: expected one [MASK], where the model writes",
        "the column 'text' is empty",
        "no field 'text', but of",
    ]


def test_score_of_a_target_is_that_of_python(run, tmp_path, glm, tiny_tokenizer):
    rows = [
        {"text": "the cat [MASK].", "goal": "sat on a mat"},
        {"text": "[MASK] ran home", "goal": "dog"},
        {"text": "go [MASK]", "goal": ""},
    ]
    asked.write(tmp_path / "in.jsonl", rows)
    assert run("--kind=score", "--input=in.jsonl", "--target=goal", "--max_bad=1")[0] == 0
    *found, empty = table(tmp_path).to_pylist()
    for row, given in zip(found, rows, strict=False):
        (alone,) = score(glm, tiny_tokenizer, given["text"], [given["goal"]])
        assert row["logprob"] == pytest.approx(alone.logprob, abs=1e-4)
        assert row["tokens"] == alone.tokens
    assert (empty["logprob"], empty["reason"]) == (None, "in.jsonl:3: the column 'goal' is empty")


def test_score_of_a_text_is_that_of_its_windows_however_long_it_is(run, tmp_path, glm, tiny_tokenizer):
    texts = [*TEXTS, "the cat sat on a mat then " * 12]
    asked.write(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    assert run("--kind=score", "--input=in.jsonl")[0] == 0
    special = tiny_tokenizer.special
    marks = layout.Marks(special.sop, special.eop, special.pad)
    mask = special.gmask if special.gmask >= 0 else special.mask
    for row, text in zip(table(tmp_path).to_pylist(), texts, strict=True):
        tokens = tiny_tokenizer.encode(text)
        windows = text_windows(
            tokens, cls=special.cls, mask=mask, marks=marks, window=47, stride=23, bidirectional=True
        )
        alone = score_text(glm, windows, vocab_size=tiny_tokenizer.vocab_size).logprob
        assert row["logprob"] == pytest.approx(alone, abs=1e-3)
        assert row["tokens"] == len(tokens)
        assert row["bits_per_byte"] == pytest.approx(-alone / math.log(2) / len(text.encode()), abs=1e-5)


def test_embed_is_the_mean_state_of_the_tokens_of_a_text(run, tmp_path, glm, tiny_tokenizer):
    texts = [*TEXTS, "go " * 60, " "]
    asked.write(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    code, _, err = run("--kind=embed", "--input=in.jsonl", "--max_bad=0.2")
    assert (code, err) == (0, "")
    found = table(tmp_path)
    assert found.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    assert found["tokens_cut"].to_pylist() == [0, 0, 0, 0, 14, None]
    for row, text in zip(found.to_pylist()[:4], texts, strict=False):
        tokens = [tiny_tokenizer.special.cls, *tiny_tokenizer.encode(text), tiny_tokenizer.special.eos]
        ids = torch.tensor([tokens])
        with torch.inference_mode():
            states = glm.hidden(ids, torch.arange(len(tokens))[None], torch.zeros_like(ids))
        assert row["embedding"] == pytest.approx(states[0, 1:-1].mean(0).tolist(), abs=1e-5)
    assert found["embedding"].to_pylist()[5] == [None] * 32  # a list that is null could not be read again


def test_classify_without_fine_tuning_takes_words(run, tmp_path, glm, tiny_tokenizer):
    asked.write(tmp_path / "in.jsonl", [{"body": text} for text in TEXTS])
    words = "--words={bad: dog, good: ran}"
    assert run("--kind=classify", "--input=in.jsonl", "--pattern={body~} then {mask}.", words)[0] == 0
    for row, text in zip(table(tmp_path).to_pylist(), TEXTS, strict=True):
        bad, good = (one.logprob for one in score(glm, tiny_tokenizer, f"{text} then [MASK].", ["dog", "ran"],
                                                  count_end=False))  # fmt: skip
        assert row["label"] == ("bad" if bad >= good else "good")
        assert row["p_bad"] == pytest.approx(1 / (1 + math.exp(good - bad)), abs=1e-5)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "--kind is missing"),
        (("--kind=classify",), "--words is missing"),
        (("--kind=choose",), "--candidates is missing"),
        (("--kind=embed", "--target=goal"), "--target does nothing with --kind=embed"),
        (("--kind=score", "--decoding.max_tokens=3"), "--decoding does nothing with --kind=score"),
        (("--kind=embed", "--pattern={text} {mask}"), "has a mask"),
        (("--kind=embed", "--pattern={text~}", "--text=body"), "--text does nothing with --pattern"),
        (("--kind=fill", "--pattern={text}"), "has no mask"),
        (("--kind=fill", "--pattern={text"), "brace without its partner"),
        (("--kind=fill", "--decoding.samples=2", "--decoding.temperature=1.0"), "does not fit a table"),
        (("--kind=fill", "--decoding.max_tokens=48"), "--decoding.max_tokens=48 is too many"),
        (("--kind=fill", "--order=1,0"), "--order=1,0 is unknown"),
        (("--kind=sort",), "expected one of its values, got 'sort'"),
    ],
)
def test_a_kind_that_cannot_be_is_refused(run, tmp_path, argv, said):
    asked.write(tmp_path / "in.jsonl", [{"text": "the cat"}])
    code, _, err = run("--input=in.jsonl", *argv)
    assert code == 2
    assert said in err


def test_a_fine_tuned_model_is_asked_as_it_was_taught_or_gives_vectors(run, tmp_path, tiny_tokenizer):
    taught = asked.teach(asked.model_folder(tmp_path / "taught", tiny_tokenizer), {"bad": "dog", "good": "ran"})
    asked.write(tmp_path / "in" / "in.jsonl", [{"text": "the cat"}])
    code, _, err = run("--input=in", "--pattern={text} {mask}", model=taught)
    assert (code, "is asked as it was taught, without --pattern" in err) == (2, True)
    assert run("--input=in", "--kind=embed", model=taught)[0] == 0
    assert len(table(tmp_path)["embedding"].to_pylist()[0]) == 32


def test_a_model_that_was_taught_to_choose_takes_the_candidates_of_its_task(run, tmp_path, tiny_tokenizer):
    folder = asked.model_folder(tmp_path / "copa", tiny_tokenizer)
    asked.teach_task(folder, TaskConfig(name="copa"))
    row = {"premise": "The cat ran.", "choice1": "The dog sat.", "choice2": "A mat.", "question": "cause", "idx": 0}
    asked.write(tmp_path / "in" / "in.jsonl", [row])
    assert run("--input=in", model=folder)[0] == 0
    (found,) = table(tmp_path).to_pylist()
    assert found["choice"] == ("the dog sat", "a mat")[found["choice_number"]]
    code, _, err = run("--input=in", "--kind=classify", model=folder)
    assert (code, "copa does not give each row one of its labels" in err, "--kind=choose" in err) == (2, True, True)


def test_a_model_that_was_taught_to_write_writes(run, tmp_path, tiny_tokenizer):
    folder = asked.model_folder(tmp_path / "wsc", tiny_tokenizer, positions=96)
    asked.teach_task(folder, TaskConfig(name="wsc"))
    target = {"span1_text": "cat", "span1_index": 1, "span2_text": "it", "span2_index": 4}
    asked.write(tmp_path / "in" / "in.jsonl", [{"idx": 0, "text": "The cat sat then it ran", "target": target}])
    assert run("--input=in", "--decoding.max_tokens=3", model=folder)[0] == 0
    (found,) = table(tmp_path).to_pylist()
    assert found["filled"].startswith("The cat sat then *it* ran Question: In the passage above, what does the pronoun")
    assert len(found["blanks"]) == 1


def test_a_model_that_was_taught_to_generate_writes_as_it_was_taught(run, tmp_path, tiny_tokenizer):
    folder = asked.model_folder(tmp_path / "short", tiny_tokenizer)
    recipe = TaskConfig(name="seq2seq", source="long", generation=GenerationConfig(max_tokens=3, beams=2))
    asked.teach_task(folder, recipe)
    asked.write(tmp_path / "in" / "in.jsonl", [{"long": "the cat sat", "target": "a cat"}, {"long": "the cat sat"}])
    assert run("--input=in", model=folder)[0] == 0
    alone = fill(GLM.from_pretrained(folder), tiny_tokenizer, "the cat sat [MASK]", max_tokens=3, beams=2)
    assert table(tmp_path)["filled"].to_pylist() == [alone.text] * 2


def test_a_model_with_a_head_classifies_and_embeds_and_does_nothing_else(run, tmp_path, glm, tiny_tokenizer):
    torch.manual_seed(0)
    folder = str(tmp_path / "headed")
    Classifier(glm, 2).save_pretrained(folder, tiny_tokenizer)
    asked.teach_task(folder, TaskConfig(words={"bad": "dog", "good": "ran"}, head=True))
    asked.write(tmp_path / "in" / "in.jsonl", [{"text": "the cat"}])
    code, _, err = run("--input=in", "--kind=fill", model=folder)
    assert (code, "headed cannot fill" in err) == (2, True)
    assert run("--input=in", model=folder)[0] == 0
    assert table(tmp_path)["label"].to_pylist()[0] in ("bad", "good")


def test_a_tokenizer_without_masks_embeds_and_writes_nothing(run, tmp_path, glm, tiny_tokenizer, monkeypatch):
    save_pretrained(glm, str(tmp_path / "plain"), tiny_tokenizer)
    asked.write(tmp_path / "in" / "in.jsonl", [{"text": "the cat"}])
    missing = tiny_tokenizer.special.__class__(**{**vars(tiny_tokenizer.special), "mask": -1, "smask": -1, "gmask": -1})
    monkeypatch.setattr("glm_model.tokenizer.tokenizer._special_ids", lambda spec: missing)
    code, _, err = run("--input=in", "--kind=fill", "--decoding.max_tokens=4", model=str(tmp_path / "plain"))
    assert (code, "its tokenizer has no mask" in err) == (2, True)


@pytest.mark.parametrize(
    "how",
    [
        ["--kind=fill", "--decoding.max_tokens=2"],
        ["--kind=score"],
        ["--kind=embed"],
        ["--kind=classify", "--words={bad: dog, good: ran}", "--pattern={label} {mask}"],
        ["--kind=choose", "--candidates=[of]"],
    ],
)
def test_weights_that_are_not_finite_are_told(run, tmp_path, glm, tiny_tokenizer, how):
    broken = copy.deepcopy(glm)
    with torch.no_grad():
        broken.final_norm.weight[0] = float("nan")
    save_pretrained(broken, str(tmp_path / "broken"), tiny_tokenizer)
    asked.write(tmp_path / "in.jsonl", [{"text": "the [MASK]", "label": "a", "of": ["cat", "dog"]}])
    code, _, err = run("--input=in.jsonl", *how, model=str(tmp_path / "broken"))
    assert code == 4
    assert err.startswith("error: broken answers nothing\n  why: the model's weights are not finite: final_norm.weight")
    assert err.endswith("exit 4 (diverged)\n")
    assert "Traceback" not in err
