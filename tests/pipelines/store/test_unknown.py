"""Text that the tokenizer does not know: counted in the manifest, warned of from 1 %, refused from 10 %."""

import json
import random
from pathlib import Path

import pytest
from helpers.runners import one_by_one

from infra.config import Count
from infra.errors import DataError
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, TokenizerConfig
from pipelines.corpus.sources import Source
from pipelines.estimate import estimate
from pipelines.prepare import preparation_of, prepare
from pipelines.store.format import TokenStore
from pipelines.store.tokenizer_training import TokenizerTraining, train

WORDS = ["the", "river", "bridge", "carried", "stone", "letter", "captain", "garden", "winter", "morning"]


def texts(count: int, unknown: int) -> list[str]:
    """Documents of 100 words, `unknown` of them a snowman, which no tokenizer here knows: 3 bytes of about 690."""
    rng = random.Random(unknown)
    made = []
    for _ in range(count):
        words = rng.choices(WORDS, k=100)
        words[:unknown] = ["☃"] * unknown
        rng.shuffle(words)
        made.append(" ".join(words))
    return made


def config_of(folder: Path, **sources: int) -> DataConfig:
    """A corpus with 40 documents of each source, and so many unknown words in each document; cased WordPiece."""
    train(texts(40, 0), TokenizerTraining(vocab_size=512)).save(str(folder / "tokenizer"))
    for name, unknown in sources.items():
        lines = [json.dumps({"text": text}) + "\n" for text in texts(40, unknown)]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return DataConfig(
        [Source("jsonl", str(folder / f"{name}.jsonl"), name=name) for name in sources],
        root=str(folder / "data"),
        tokenizer=TokenizerConfig(str(folder / "tokenizer")),
        sequence_length=64,
        row_width=512,
        validation_tokens=Count(100),
    )


def made(config: DataConfig) -> TokenStore:
    return prepare(preparation_of(config, BlanksConfig()), one_by_one())


def test_unknown_bytes_are_counted_by_source_and_told_from_one_percent_on(tmp_path, capsys):
    config = config_of(tmp_path, known=0, rare=1, some=5)
    store = made(config)
    counts = {source.name: source.unknown_bytes for source in store.manifest.sources}
    assert counts == {"known": 0, "rare": 40 * 3, "some": 40 * 15}
    assert TokenStore.open(store.url).manifest.sources == store.manifest.sources
    told = " ".join(capsys.readouterr().out.split())
    assert "does not know 2.2% of the text of 'some'" in told
    assert "--data.tokenizer.train.algorithm=bpe, which has a token for every byte" in told
    assert "text of 'rare'" not in told
    assert "text of 'known'" not in told


def test_a_source_is_refused_from_ten_percent_on_until_that_is_allowed(tmp_path):
    config = config_of(tmp_path, known=0, much=30)
    with pytest.raises(
        DataError, match=r"does not know 1\d\.\d% of the text of 'much': 3,600 of [\d,]+ bytes"
    ) as refused:
        made(config)
    assert "data.tokenizer.train.algorithm=bpe" in str(refused.value.try_)
    assert not list((tmp_path / "data" / "stores").glob("*/manifest.json"))
    config.max_unknown = 1.0
    assert made(config).manifest.sources[1].unknown_bytes == 3600


def test_a_plan_says_what_the_tokenizer_does_not_know(tmp_path):
    config = config_of(tmp_path, known=0, much=30)
    found = estimate(config, preparation_of(config, BlanksConfig()).inputs.files)
    shares = {source.name: source.unknown_share for source in found.sources}
    assert shares == {"known": 0, "much": pytest.approx(0.152, abs=0.001)}


@pytest.mark.parametrize(("script", "limit"), [("ກຂຄງຈສຊຍດຕຖທນບປຜຝພຟມຢຣລວຫອຮະັາິີຶືຸູ", 0.0001), ("abcdefghijk", 0.0001)])
def test_wordpiece_that_we_train_cuts_words_that_are_too_long_for_it(script, limit):
    """Clauses without spaces, of 150 to 300 characters."""
    rng = random.Random(3)
    clauses = ["".join(rng.choices(script, k=rng.randint(150, 300))) for _ in range(200)]
    tokenizer = train([" ".join(clauses)], TokenizerTraining(vocab_size=600))
    ids, offsets = tokenizer.encode_batch(clauses)
    assert tokenizer.unknown_bytes(clauses, ids, offsets).sum() <= limit * sum(len(c.encode()) for c in clauses)
    for index, clause in enumerate(clauses[:20]):
        own = ids[offsets[index] : offsets[index + 1]].tolist()
        assert own == tokenizer.encode(clause).tolist()
        assert tokenizer.decode(own).replace(" ", "") == clause


def test_a_corpus_of_thai_is_known_to_the_tokenizer_that_is_trained_on_it(tmp_path):
    """Thai has spaces between clauses: of these, 70 % of the characters were [UNK] because a clause was too long."""
    rng = random.Random(1)
    syllables = [
        "กา",
        "ขา",
        "นา",
        "มา",
        "ไป",
        "ที่",
        "เรา",
        "บ้าน",
        "คน",
        "น้ำ",
        "ดี",
        "ใหญ่",
        "เล็ก",
        "รัก",
        "เมือง",
        "ไทย",
        "ภาษา",
    ]
    clauses = ["".join(rng.choices(syllables, k=rng.randint(5, 60))) for _ in range(600)]
    lines = [json.dumps({"text": " ".join(clauses[i : i + 20])}) + "\n" for i in range(0, 600, 20)]
    (tmp_path / "thai.jsonl").write_text("".join(lines))
    config = DataConfig(
        [Source("jsonl", str(tmp_path / "thai.jsonl"))],
        root=str(tmp_path / "data"),
        tokenizer=TokenizerConfig(train=TokenizerTraining(vocab_size=512)),
        sequence_length=64,
        row_width=512,
        validation_tokens=Count(100),
    )
    (source,) = made(config).manifest.sources
    assert source.num_bytes > 100_000
    assert source.unknown_bytes == 0


def test_a_corpus_without_long_words_keeps_its_tokenizer():
    spec = json.loads(train(texts(40, 0), TokenizerTraining(vocab_size=512)).to_json())
    assert spec["pre_tokenizer"] == {"type": "BertPreTokenizer"}
