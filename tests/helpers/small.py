"""Small things made without Ray: a tokenizer whose ids are known by heart, segments of plain numbers, a token store."""

import itertools
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from glm_model.layout import Marks
from glm_model.tokenizer import Tokenizer
from infra import storage
from pipelines.blanks.mixture import BlanksConfig, Mixture
from pipelines.corpus import ledger
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.records import Unit, buckets_of
from pipelines.corpus.sources import InputFile, Source, list_inputs
from pipelines.corpus.units import clean_files
from pipelines.feed.examples import FeedSettings, feed_settings
from pipelines.feed.stored_blanks import blanks_key, write_blanks
from pipelines.ragged import RowBatch
from pipelines.selection.dropped import SelectedText
from pipelines.store import format as stores
from pipelines.store.held_out import Cuts
from pipelines.store.manifest import Manifest
from pipelines.store.shards import ShardJob, ShardSettings, build_shard
from pipelines.token_classes import TokenClasses

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "dog",
    "ran",
    "home",
    "mr",
    "smith",
    "said",
    "go",
    "then",
    "z",
    "b",
    "3",
    "5",
    "oktober",
]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ing", *'.?!。"”)(', "你", "好"]

# Ids of the authors' worked examples (their table of token ids): text is any other number.
GOLDEN_MARKS = Marks(sop=990, eop=991, pad=0)
GOLDEN_ENDS = (10, 11, 12, 13)


@st.composite
def blanked_segments(draw) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(tokens, spans, mask) of a few segments: spans of any number, none included, adjacent ones, in any order."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        n = draw(st.integers(1, 12))
        tokens = np.array(draw(st.lists(st.integers(0, 999), min_size=n, max_size=n)))
        bounds = sorted(draw(st.lists(st.integers(0, n), max_size=6, unique=True)))
        spans = list(itertools.pairwise(bounds))
        kept = draw(st.permutations(spans))[: draw(st.integers(0, 5))]
        found.append((tokens, np.array(kept, np.int64).reshape(-1, 2), draw(st.sampled_from([2, 992]))))
    return found


def golden_classes() -> TokenClasses:
    """Tokens are plain numbers; 10 to 13 end a sentence."""
    classes = np.zeros(1000, np.uint8)
    classes[list(GOLDEN_ENDS)] = 1
    return TokenClasses(cls=1, eos=0, masks={"mask": 2, "smask": 993, "gmask": 992}, classes=classes)


def golden_settings(mixture: Mixture, *, width: int) -> FeedSettings:
    """For rows of `numbers`, without a store."""
    return FeedSettings("train", mixture, golden_classes(), GOLDEN_MARKS, 0, width, 512, None)


def numbers(lengths, eos, *, seed: int = 0, ends: float = 0.08, rows=None) -> RowBatch:
    """Segments of random numbers: `lengths` text tokens behind [CLS] (1), followed by eos (0) where `eos` is true.

    `ends` is the share of tokens that end a sentence. rows: row offsets; default one segment per row.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for length, with_eos in zip(lengths, eos, strict=True):
        text = rng.integers(20, 990, length)
        stops = rng.random(length) < ends
        text[stops] = rng.choice(GOLDEN_ENDS, int(stops.sum()))
        parts.append(np.concatenate(([1], text, [0] if with_eos else [])))
    sizes = [len(part) for part in parts]
    flat = np.concatenate(parts) if parts else np.empty(0)
    ids = rng.integers(0, 1 << 63, len(parts)).astype(np.uint64)
    num_bytes = 4 * np.asarray(lengths, np.int64)
    row_offsets = np.arange(len(parts) + 1) if rows is None else np.asarray(rows)
    return RowBatch(flat.astype(np.uint16), np.cumsum([0, *sizes]), ids, num_bytes, row_offsets)


def contents(arrays) -> dict[str, tuple[str, list]]:
    """Type and values of each array of a frozen dataclass, by its name: what two of them are compared by."""
    named = {field.name: getattr(arrays, field.name) for field in fields(arrays)}
    return {name: (array.dtype.str, array.tolist()) for name, array in named.items()}


def tokenizer(folder: Path) -> Tokenizer:
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return Tokenizer.load(str(folder / "vocab.txt"))


def documents(count: int, *, seed: int = 0) -> list[str]:
    """Texts of 3 to 60 words of the tiny vocabulary in sentences, all different."""
    rng = np.random.default_rng(seed)
    texts = []
    for number in range(count):
        words = [WORDS[i] for i in rng.integers(0, 14, 3 + int(rng.integers(58)))]
        stops = set(np.flatnonzero(rng.random(len(words)) < 0.2).tolist()) | {len(words) - 1}
        said = [word + ("." if place in stops else "") for place, word in enumerate(words)]
        texts.append(f"dog {' '.join('a' if bit == '1' else 'the' for bit in f'{number:b}')} " + " ".join(said))
    return texts


def corpus(folder: Path, texts: list[str], *, name: str = "corpus", source: str | None = None) -> list:
    """The input files of a JSON-lines corpus; source: its name, by default the file's."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return list_inputs([Source("jsonl", str(folder / f"{name}.jsonl"), name=source or name)])


def settings(**changes) -> ShardSettings:
    values = {"sequence_length": 32, "row_width": 160, "rows_per_group": 4, "blanks": {"mixture": "glm_multi"}}
    return ShardSettings(**{**values, **changes})


def store(folder: Path, tokenizer: Tokenizer, *, root: str | None = None, **changes) -> stores.TokenStore:
    """A finished token store of 120 short documents below `root` (default: folder), built by the functions that Ray
    Data tasks call.
    """
    url, text_url = f"{root or folder}/store", f"{root or folder}/text"
    unit = clean_unit(corpus(folder / "raw", documents(120)), CleanConfig(), f"{text_url}/0123456789abcdef")
    tokenizer.save(url)
    buckets = buckets_of([unit])
    limit = 1 << 61  # an eighth of the documents is held out
    cuts = Cuts({"train": {unit.source: (limit, 2**64 - 1)}, "validation": {unit.source: (0, limit - 1)}}, tails={})
    shard_settings, text = settings(**changes), SelectedText(text_url, None)
    shards = {
        split: [
            build_shard(ShardJob(split, f"shard-{n:05d}", own), cuts, shard_settings, text=text, store_url=url).shard
            for n, own in enumerate(assigned)
        ]
        for split, assigned in (("train", [buckets[:9], buckets[9:]]), ("validation", [buckets]))
    }
    balance = ledger.balance([unit])
    manifest = Manifest(
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        dtype=stores.token_dtype(tokenizer.vocab_size).str,
        settings=asdict(shard_settings),
        documents=balance.documents,
        sources=balance.sources,
    )
    stores.publish(url, manifest, {**shards, "test": []})
    assert storage.exists(f"{url}/manifest.json")
    return stores.TokenStore.open(url)


def settings_of(opened: stores.TokenStore, tokenizer: Tokenizer, *, split: str = "train", **changes) -> FeedSettings:
    """How a run with these blanks reads the store, drawing all of them."""
    config = BlanksConfig(**{"mixture": "glm_multi", "seed": 7, **changes})
    return feed_settings(opened, tokenizer, config, split=split)


def store_blanks(opened: stores.TokenStore, settings: FeedSettings, *, epoch: int = 0) -> FeedSettings:
    """Store the blanks of an epoch of the training split; returns the settings of a run that uses them."""
    key = blanks_key(settings.mixture, seed=settings.seed, width=settings.width)
    settings = replace(settings, blanks_key=key)
    for shard in range(len(opened.train.shards)):
        write_blanks(opened.url, opened.train, shard, settings, epoch=epoch)
    return settings


def clean_unit(files: list[InputFile], config: CleanConfig, out_url: str) -> Unit:
    """The one unit that these files make."""
    (unit,) = clean_files(files, config, out_url)
    return unit


def unit(source: str, **changes) -> Unit:
    """A unit without documents."""
    nothing = Unit(source, ("", ""), "unit", 0, 0, {}, {}, {}, {}, 0, {}, {}, 0, 0, (), "")
    return replace(nothing, **changes)
