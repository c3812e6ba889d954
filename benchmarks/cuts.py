"""Where segments are cut: how many cuts stand behind a sentence, how full the segments are, and what cutting costs.

    python benchmarks/cuts.py --reader text --url novels --tokenizer vocab.txt [--length 256] [--json FILE]

A cut is judged by the text before it: a mark that ends sentences, then closing quotation marks. The end of a
document does not count. The time is the process's own, of encoding and cutting.
"""

import argparse
import json
import platform
import re
import time

import numpy as np

from glm_model.tokenizer import Tokenizer
from pipelines.corpus.clean import CleanConfig, clean
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import Document
from pipelines.store.segments import encode_documents, segment_documents

ENDED = re.compile(r"[.?!…。！？；][\"'”’»」』》）)\]_*]*\s*\Z")


def main() -> None:
    options = _options()
    tokenizer, texts = Tokenizer.load(options.tokenizer), _texts(options)
    special = tokenizer.special
    begin = time.process_time()
    encoded = encode_documents(texts, tokenizer)
    segments = segment_documents(
        encoded.flat,
        encoded.token_offsets,
        encoded.chunks,
        np.arange(len(texts), dtype=np.uint64),
        length=options.length,
        cls=special.cls,
        eos=special.eos,
    )
    seconds = time.process_time() - begin
    is_cut = np.append(segments.document[1:] == segments.document[:-1], False)
    ended = 0
    for document in np.unique(segments.document).tolist():
        own = segments.document == document
        raw, ends = texts[document].encode(), np.cumsum(segments.num_bytes[own])[is_cut[own]]
        ended += sum(bool(ENDED.search(raw[max(end - 30, 0) : end].decode(errors="ignore"))) for end in ends.tolist())
    values = {
        "documents": len(texts),
        "cuts": int(is_cut.sum()),
        "behind_a_sentence": ended / max(is_cut.sum(), 1),
        "full": float(np.diff(segments.offsets)[is_cut].mean()) / options.length if is_cut.any() else 1.0,
        "tokens_per_second": len(segments.tokens) / seconds,
    }
    for name, value in values.items():
        print(f"{name:20} {value:,.3f}" if isinstance(value, float) and value < 2 else f"{name:20} {value:,.0f}")
    if options.json:
        with open(options.json, "w") as file:
            machine = platform.processor() or platform.machine()
            json.dump({"name": "cuts", "machine": machine, "values": values, "ratios": {}}, file, indent=2)


def _texts(options: argparse.Namespace) -> list[str]:
    """The cleaned texts of the source, up to so many characters."""
    texts: list[str] = []
    characters = 0
    for file in list_inputs([Source(options.reader, options.url)]):
        for found in read_documents(file):
            kept = clean(found.text, CleanConfig()) if isinstance(found, Document) else ""
            if not isinstance(kept, str):
                texts.append(kept[0])
                characters += len(kept[0])
        if characters > options.characters:
            break
    return texts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", required=True, help="a reader, such as text, gutenberg or wikiextractor")
    parser.add_argument("--url", required=True, help="what it reads")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json, vocab.txt or another form")
    parser.add_argument("--length", type=int, default=256, help="tokens of a segment")
    parser.add_argument("--characters", type=int, default=20_000_000, help="of text, about, that are looked at")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
