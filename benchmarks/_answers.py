"""Blanks filled in several ways and scores, each with all digits of its logarithms: what a tree makes of a model.

Run by same_as.py, which says with PYTHONPATH whose `glm_model` this is:

    python benchmarks/_answers.py FOLDER_OF_A_MODEL
"""

import json
import sys
from typing import Any

from glm_model import Decoding, Tokenizer, fill, fill_batch, from_pretrained, score

_TEXTS = ["The river [MASK] the old bridge [MASK].", "Der König [MASK].", "[gMASK]", "的一是[MASK]在不了有和"]
_WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "seed": 7},
    "beams": {"beams": 3, "length_penalty": 0.7, "no_repeat_ngram": 2},
}


def main() -> None:
    (folder,) = sys.argv[1:]
    model, tokenizer = from_pretrained(folder), Tokenizer.load(folder)
    found = {
        name: [_written(fill(model, tokenizer, text, max_tokens=12, **how)) for text in _TEXTS]
        for name, how in _WAYS.items()
    }
    several = Decoding(max_tokens=6, temperature=1.1, samples=3)
    together = fill_batch(model, tokenizer, _TEXTS, several)
    found["samples of several texts"] = [_written(filled) for samples in together for filled in samples]
    answers = ["garden", "bridge", "quiet harbour"]
    scores = [score(model, tokenizer, "The old [MASK].", answers, count_end=count_end) for count_end in (True, False)]
    found["scores"] = [f"{one.logprob.hex()} {one.tokens} {one.greedy}" for ones in scores for one in ones]
    print(json.dumps(found))


def _written(filled: Any) -> str:
    return repr([(blank.text, blank.tokens, float(blank.logprob).hex()) for blank in filled.blanks])


if __name__ == "__main__":
    main()
