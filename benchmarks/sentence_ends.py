"""Sentence ends found on tokens: our rule and the authors', against ends marked by hand.

    python benchmarks/sentence_ends.py --vocabulary vocab.txt [--json FILE]

The texts are chosen to be hard: numbers, abbreviations, initials, ordinals, quotation marks, several scripts; so the
figures say nothing about running text. The authors' rule ends a sentence at every token whose surface contains one of
. ? ! ; : or a line break, or 。？！；….
"""

import argparse
import json
import platform

import numpy as np

from glm_model.tokenizer import Tokenizer
from pipelines.token_classes import CLOSER, classify, sentence_ends

# A bar stands behind every sentence end.
MARKED = """
Prices rose by 3.5 percent.| Nobody complained.|
See e.g. the table of Dr. Smith.| It is on p. 4 of the book.|
The U.S. Senate met at 10:30.| Mr. J. R. Brown spoke first; the others listened.|
"Is it over?" she asked.| "Not yet!"| He smiled.|
Version 2.0.1 was released on Jan. 5.| It fixes two bugs.|
Visit the U.K. in May.| Bring an umbrella, a coat, etc.|
Wait...| what was that?!| Nothing.|
He paid $4.50 for coffee, i.e. too much.| Still, it was good.|
There were three: red, blue and green.| All were sold; none came back.|
The St. Louis team won 4-2 vs. Boston.| Fans cheered.|
Am 3. Oktober feiert man in Berlin.| Viele kommen, z. B. aus Hamburg.|
Das kostet ca. 5 Euro.| Dr. Meier zahlt bar.|
Er wurde am 12. Mai 1890 geboren.| Sein Vater war Schmied.|
Die Nr. 7 ist neu, vgl. Abb. 2.| Mehr folgt.|
我喜欢读书。|你呢？|我也喜欢！|
他说：“今天很好。”|然后他走了。|
"""


def main() -> None:
    options = _options()
    tokenizer = Tokenizer.load(options.vocabulary)
    pieces = tokenizer.surfaces()
    classes, theirs = (
        classify(pieces),
        np.array([any(mark in piece for mark in ".?!;:\n。？！；…") for piece in pieces]),
    )
    counts = {"ours": np.zeros(3, int), "authors": np.zeros(3, int)}
    for line in MARKED.strip().splitlines():
        sentences = [part.strip() for part in line.split("|") if part.strip()]
        # Byte-level tokenizers join a word with the space before it, which Latin script has between sentences.
        spaced = [f" {text}" if place and text.isascii() else text for place, text in enumerate(sentences)]
        ids = [tokenizer.encode(text) for text in spaced]
        true = np.zeros(sum(map(len, ids)), bool)
        true[np.cumsum([len(part) for part in ids]) - 1] = True
        flat = np.concatenate(ids)
        for name, found in (("ours", sentence_ends(flat, classes)), ("authors", _closed(theirs[flat], classes[flat]))):
            counts[name] += [(found & true).sum(), (found & ~true).sum(), (~found & true).sum()]
    print(f"{'':8} {'found':>6} {'false':>6} {'missed':>7} {'precision':>10} {'recall':>7}")
    values = {}
    for name, (found, false, missed) in counts.items():
        precision, recall = found / max(found + false, 1), found / (found + missed)
        values |= {f"{name}_precision": precision, f"{name}_recall": recall}
        print(f"{name:8} {found:6} {false:6} {missed:7} {precision:10.2f} {recall:7.2f}")
    if options.json:
        report = {"name": "sentence_ends", "machine": platform.processor() or platform.machine()}
        ratios = {"false_ends": counts["ours"][1] / max(counts["authors"][1], 1)}
        with open(options.json, "w") as file:
            json.dump({**report, "values": values, "ratios": ratios}, file, indent=2)


def _closed(ends: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Ends moved behind the closing marks that follow: the rule cuts before them, which is not held against it."""
    ends = ends.copy()
    for i in np.flatnonzero(ends):
        last = i
        while last + 1 < len(ends) and classes[last + 1] & CLOSER:
            last += 1
        ends[i], ends[last] = False, True
    return ends


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", required=True, help="tokenizer.json or vocab.txt")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
