"""Items written for tests, in the official form of each task, and a tokenizer that knows every letter: what a fixed
model scores on them holds wherever no published data are.
"""

import itertools
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import asked
from helpers.small import WORDS

from glm_model.tokenizer import Tokenizer

COUNT = 12
_LABEL_WORDS = ["yes", "no", "maybe", "true", "false", "neither", "terrible", "great"]
_MARKS = ".,?!:;\"'/()[]-"


def tokenizer(folder: Path) -> Tokenizer:
    """Whole words of the tiny vocabulary and of label words; other words by their letters."""
    words = [word for word in [*WORDS, *_LABEL_WORDS] if len(word) > 1]
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *_MARKS, *string.digits[:4]]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return Tokenizer.load(str(folder / "vocab.txt"))


def sentence(number: int, words: int = 5) -> str:
    """A sentence of its own for each number."""
    chosen = itertools.islice(itertools.cycle(WORDS[number % 7 :]), number % 3, words + number % 4)
    return " ".join(chosen).capitalize() + "."


def _entailment(labels: tuple[str, ...]) -> Callable[[int], dict[str, Any]]:
    def row(n: int) -> dict[str, Any]:
        return {
            "premise": sentence(n, 9),
            "hypothesis": sentence(n + 5, 4),
            "label": labels[n % len(labels)],
            "idx": n,
        }

    return row


def _copa(n: int) -> dict[str, Any]:
    question = ("cause", "effect")[n % 2]
    choices = {"choice1": sentence(n + 3, 4), "choice2": sentence(n + 8, 4)}
    return {"premise": sentence(n), **choices, "question": question, "idx": n, "label": n % 3 % 2}


def _blimp(n: int) -> dict[str, Any]:
    words = sentence(n, 6).split()
    bad = " ".join([*words[1:2], *words[:1], *words[2:]])
    paradigm = {"UID": f"paradigm_{n % 3}", "field": "syntax", "linguistics_term": "order"}
    return {"sentence_good": " ".join(words), "sentence_bad": bad, "pairID": str(n), **paradigm}


def _own(n: int) -> dict[str, Any]:
    return {"text": sentence(n, 7), "text2": sentence(n + 4, 3), "label": ("bad", "good")[n * n % 3 % 2]}


def _boolq(n: int) -> dict[str, Any]:
    passage = f"Rain {n // 2} -- {sentence(n // 2, 12)}"
    return {"passage": passage, "question": sentence(n + 1, 4).lower().rstrip("."), "label": n % 3 == 0, "idx": n}


def _multirc(n: int) -> dict[str, Any]:
    answers = [{"text": sentence(n + k, 2), "idx": 10 * n + k, "label": (n + k) % 2} for k in range(3)]
    question = {"question": sentence(n + 2, 4), "idx": n, "answers": answers}
    return {"idx": n, "version": 1.1, "passage": {"text": sentence(n, 14), "questions": [question]}}


def _record(n: int) -> dict[str, Any]:
    text = f"{sentence(n, 6)} Mr. Smith said go.\n@highlight\n{sentence(n + 1, 4)}"
    names = ["Smith", text.split()[0], "Mr."]
    entities = [{"start": text.index(name), "end": text.index(name) + len(name) - 1} for name in names]
    answer = {"start": entities[n % 3]["start"], "end": entities[n % 3]["end"], "text": names[n % 3]}
    asked = {"query": f"the dog said @placeholder {sentence(n, 3)}", "idx": n, "answers": [answer]}
    return {"idx": n, "source": "news", "passage": {"text": text, "entities": entities}, "qas": [asked]}


def _wic(n: int) -> dict[str, Any]:
    first, second = f"The cat {sentence(n, 3)}", f"A cat {sentence(n + 1, 3)}"
    places = {"start1": 4, "end1": 7, "start2": 2, "end2": 5, "version": 1.1}
    return {"word": "cat", "sentence1": first, "sentence2": second, "idx": n, "label": n % 2 == 0, **places}


def _wsc(n: int) -> dict[str, Any]:
    text = f"The {('dog', 'cat')[n % 2]} ran home. Then it {sentence(n, 3).lower()}"
    target = {
        "span1_text": ("The dog", "The cat", "home")[n % 3],
        "span1_index": 0,
        "span2_text": "it",
        "span2_index": 5,
    }
    return {"text": text, "target": target, "idx": n, "label": n % 3 == n % 2}


def _ax_b(n: int) -> dict[str, Any]:
    pair = {"sentence1": sentence(n, 7), "sentence2": sentence(n + 5, 5), "logic": "Negation"}
    return {"idx": n, "label": ("entailment", "not_entailment")[n % 2], **pair}


def _ax_g(n: int) -> dict[str, Any]:
    word = ("his", "her")[n % 2]
    premise, hypothesis = f"{sentence(n // 2, 5)} Smith ran {word} dog home.", f"{word.capitalize()} dog ran."
    return {
        "premise": premise,
        "hypothesis": hypothesis,
        "label": ("entailment", "not_entailment")[n // 2 % 2],
        "idx": n,
    }


def _endings(n: int) -> list[str]:
    return [f"{sentence(n + k, 2 + k).lower()}" for k in range(3)] + [f", {sentence(n, 1).lower()}"]


def _hellaswag(n: int) -> dict[str, Any]:
    contexts = {"activity_label": "Dogs", "ctx_a": sentence(n, 5), "ctx_b": "a dog", "ctx": f"{sentence(n, 5)} a dog"}
    return {"ind": n, **contexts, "endings": _endings(n), "label": n % 4, "split": "val"}


def _piqa(n: int) -> dict[str, Any]:
    return {"goal": sentence(n, 4), "sol1": sentence(n + 1, 3), "sol2": f"{sentence(n + 6, 4)} "}


def _mmlu(n: int) -> str:
    options = [sentence(n + k, 2).rstrip(".") for k in range(4)]
    return ",".join((f'"{sentence(n, 4)}\n{sentence(n + 1, 2)}"', *options, "ABCD"[n * n % 4]))


def _multiple_choice(n: int) -> dict[str, Any]:
    texts = [sentence(n + k, 3 + k).rstrip(".") for k in range(3)]
    return {"query": f"Question: {sentence(n, 4)}", "choices": texts, "gold": n % 3}


def _lambada(n: int) -> dict[str, Any]:
    word = WORDS[n % 7] + ("s" if n % 3 == 0 else "")
    return {"text": f'{sentence(n, 8)}\n"{sentence(n + 1, 4)}" said the {word}'}


def _seq2seq(n: int) -> dict[str, Any]:
    several = [sentence(n, 3), sentence(n + 2, 2)]
    return {"source": [sentence(n, 6), sentence(n + 1, 4)], "target": several[: 1 + n % 2]}


def _infilling(n: int) -> dict[str, Any]:
    """Every third text has blanks of its own."""
    words = sentence(n, 8).split()
    if n % 3:
        return {"text": " ".join(words)}
    return {"text": " ".join([words[0], "[MASK]", *words[2:4], "[MASK]"]), "answers": [words[1], " ".join(words[4:])]}


def _squad(n: int) -> dict[str, Any]:
    passage = sentence(n // 2, 10)
    start = passage.index(" ") + 1
    answers = [{"text": passage[start:].split()[0], "answer_start": start}] if n % 3 else []
    question = {"question": f"{sentence(n + 1, 3)[:-1]}?", "id": f"q{n}", "answers": answers}
    return {"context": passage, "qas": [{**question, "is_impossible": not answers}]}


_ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "ax_b": _ax_b,
    "ax_g": _ax_g,
    "boolq": _boolq,
    "cb": _entailment(("contradiction", "neutral", "entailment")),
    "copa": _copa,
    "multirc": _multirc,
    "record": _record,
    "rte": _entailment(("entailment", "not_entailment")),
    "wic": _wic,
    "wsc": _wsc,
    "blimp": _blimp,
    "hellaswag": _hellaswag,
    "lambada": _lambada,
    "seq2seq": _seq2seq,
    "infilling": _infilling,
    "multiple_choice": _multiple_choice,
    "classification": _own,
    "pair_classification": _own,
}


def write(task: str, folder: Path) -> str:
    """Write the items of a task as their publishers do. Returns the place. Raises KeyError for a task without items:
    write them above.
    """
    if task in _FILES:
        for name, content in _FILES[task]().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        return str(folder)
    return asked.write(folder / "dev.jsonl", [_ROWS[task](number) for number in range(COUNT)])


def _piqa_files() -> dict[str, str]:
    rows = "".join(json.dumps(_piqa(n)) + "\n" for n in range(COUNT))
    return {"valid.jsonl": rows, "valid-labels.lst": "".join(f"{n % 2}\n" for n in range(COUNT))}


def _mmlu_files() -> dict[str, str]:
    half = COUNT // 2
    parts = {"val/dogs_val.csv": range(half), "val/world_cats_val.csv": range(half, COUNT)}
    return {name: "\r\n".join(_mmlu(n) for n in numbers) for name, numbers in parts.items()}


def _perplexity_files() -> dict[str, str]:
    """The second of three articles is longer than the model."""
    lines = [" "]
    for n, size in enumerate((1, 20, 2)):
        text = " ".join(f'{sentence(k, 8)[:-1]} , he \'s " {sentence(k, 1)[:-1]} " .' for k in range(size))
        lines += [f" = Dog {n} = ", " ", f" {text} ", " ", " = = Home = = ", " ", f" {sentence(n)[:-1]} . ", " "]
    return {"wiki.valid.tokens": "\n".join(lines) + "\n"}


def _wiki_split_files() -> dict[str, str]:
    rows = ((sentence(n, 4), sentence(n + 3, 3)) for n in range(COUNT))
    lines = (f"{one[:-1]} and {two[0].lower()}{two[1:]}\t{one} <::::> {two}\n" for one, two in rows)
    return {"validation.tsv": "".join(lines)}


def _squad_files() -> dict[str, str]:
    articles = [{"title": "Dogs", "paragraphs": [_squad(n)]} for n in range(COUNT)]
    return {"dev-v2.0.json": json.dumps({"version": "v2.0", "data": articles})}


_FILES: dict[str, Callable[[], dict[str, str]]] = {
    "piqa": _piqa_files,
    "mmlu": _mmlu_files,
    "perplexity": _perplexity_files,
    "wiki_split": _wiki_split_files,
    "squad": _squad_files,
    "squad_questions": _squad_files,
}
