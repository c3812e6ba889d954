"""Files as they should not be: well-formed ones of every format, then damaged; each a function of one integer.

All are small: none would hang or exhaust a parser or an unpacker, with or without our guards.
"""

import bz2
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

_WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "größe",
    "中文",
    "naïve",
    "🐈",
    "é",
    "\xa0",
    "\ufeff",
    "\u200b",
    "<b>",
    "&amp;",
    "{{x}}",
    "[[y|z]]",
    '"q"',
    "a,b",
    "'c'",
]
_SUFFIXES = ["", "", "", "", ".gz", ".bz2", ".xz", ".zst"]


def hostile_file(seed: int, *, size: int = 40) -> tuple[str, bytes]:
    """(name, content) of a file of about `size` lines. The name ends as its compression does, or as another one."""
    rng = random.Random(seed)
    data = rng.choice(_FORMATS)(rng, size)
    for _ in range(rng.choice([0, 1, 1, 2])):
        data = rng.choice(_DAMAGES)(rng, data)
    suffix = rng.choice(_SUFFIXES)
    if suffix:
        data = packed(suffix, data) * rng.choice([1, 1, 1, 2])
        if rng.random() < 0.6:
            data = rng.choice([_cut, _flip, _flip, _insert])(rng, data)
        suffix = suffix if rng.random() < 0.95 else rng.choice(_SUFFIXES)
    return f"file {seed} %20é.{rng.choice(['txt', 'jsonl', 'csv', 'tsv', 'xml'])}{suffix}", data


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return sink.getvalue().to_pybytes()
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lambda d: lzma.compress(d, preset=0)}
    return pack[suffix](data)


# --- formats ----------------------------------------------------------------------------------------------------------


def _text(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.choice([0, 1, 10, 60])))


def _lines(rng: random.Random, size: int) -> bytes:
    return rng.choice(["\n", "\r\n", "\n\n", "\r", "\u2028"]).join(_text(rng) for _ in range(size)).encode()


def _json_lines(rng: random.Random, size: int) -> bytes:
    values = [None, True, 1e400, -1, [], {}, "x", "\ud83d", {"text": "x"}, ["text"]]

    def record() -> object:
        return {"text": _text(rng) if rng.random() < 0.8 else rng.choice(values), "id": rng.choice(values)}

    rows = [record() if rng.random() < 0.9 else rng.choice(values) for _ in range(size)]
    return b"\n".join(json.dumps(row, ensure_ascii=rng.random() < 0.5).encode(errors="replace") for row in rows)


def _deep_json(rng: random.Random, size: int) -> bytes:
    opening = rng.choice(['{"text":', "[", '[{"a":', '{"text": "x", "a": ['])
    return opening.encode() * (30 * size) + rng.choice([b"", b"\n", b"1" + b"]" * (30 * size)])


def _csv(rng: random.Random, size: int) -> bytes:
    comma = rng.choice([",", "\t", ";"])
    quote = rng.choice(['"', '"', "'", '""'])
    head = rng.choice([["id", "text", "x"], ["text"], ["text", "text"], ["\ufefftext", "b"], [], ["no", "such"]])
    rows = [head, *([f"{quote}{_text(rng)}{quote}" for _ in head] * rng.choice([1, 1, 1, 2]) for _ in range(size))]
    return rng.choice(["\n", "\r\n", "\r"]).join(comma.join(row) for row in rows).encode()


def _markup(rng: random.Random, size: int) -> str:
    pieces = ["{{", "}}", "[[", "]]", "{|", "|}", "|-", "| ", "== H ==", "'''", "<ref>", "</ref>", "<!--", "-->", "\n"]
    pieces += [
        "<nowiki>",
        "</nowiki>",
        "<math>",
        "{{{",
        "}}}",
        "[http://x ",
        "]",
        "__TOC__",
        "*",
        "&nbsp;",
        "&#0;",
        "x y",
    ]
    return "".join(rng.choice(pieces) for _ in range(rng.choice([1, size, 10 * size])))


def _wiki_dump(rng: random.Random, size: int) -> bytes:
    def page(number: int) -> str:
        text = _markup(rng, size).replace("&", "&amp;").replace("<", "&lt;") if rng.random() < 0.9 else _markup(rng, 9)
        revision = f"<revision><format>text/x-wiki</format><text>{text}</text></revision>"
        namespace = rng.choice([0, 0, 1, -1])
        return f"<page><title>T{number}</title><ns>{namespace}</ns><id>{number}</id>{revision}</page>"

    declared = '<!DOCTYPE x [<!ENTITY a "aaaa">]>' if rng.random() < 0.1 else ""
    pages = "\n".join(page(number) for number in range(max(size // 8, 1)))
    return f'<?xml version="1.0"?>{declared}<mediawiki xml:lang="en">\n{pages}\n</mediawiki>\n'.encode()


def _deep_markup(rng: random.Random, size: int) -> bytes:
    opening = rng.choice(["{{a|", "[[a|", "<doc id=", "<b>", "'''", "{|\n|", "<page><title>", "<ref>"])
    return b"<mediawiki><page><ns>0</ns><revision><text>" * rng.choice([0, 1]) + (opening * (5 * size)).encode()


def _doc_blocks(rng: random.Random, size: int) -> bytes:
    def block(number: int) -> str:
        head = f'<doc id="{number}" url="u?a=1&amp;b" title="T {number}">' if rng.random() < 0.9 else "<doc id=>"
        inner = f"{head}\n" if rng.random() < 0.1 else ""
        return f"{head}\n{inner}T {number}\n\n{_text(rng)}\n" + rng.choice(
            ["</doc>\n"] * 9 + ["", "</doc>", "\n</doc>\n"]
        )

    return "".join(block(number) for number in range(size)).encode()


def _book(rng: random.Random, size: int) -> bytes:
    stars = rng.choice(["***", "*** ", "**", "*****"])
    start = f"{stars}START OF THE PROJECT GUTENBERG EBOOK X{stars}\n"
    end = f"{stars}END OF THE PROJECT GUTENBERG EBOOK X{stars}\n"
    body = _lines(rng, size).decode() + "\n"
    parts = rng.choice([[start, body, end], [body, end], [end, body, start], [start, start, body], [start, end]])
    return ("Title: X\n\n" + "".join(parts)).encode()


def _parquet(rng: random.Random, size: int) -> bytes:
    columns: list[Callable[[], pa.Array]] = [
        lambda: pa.array([_text(rng) for _ in range(size)]),
        lambda: pa.array([_text(rng) if rng.random() < 0.5 else None for _ in range(size)], pa.large_string()),
        lambda: pa.array([_text(rng).encode() + b"\xff" for _ in range(size)]),
        lambda: pa.array(range(size)),
        lambda: pa.array([[_text(rng)] for _ in range(size)]),
        lambda: pa.array([_text(rng) for _ in range(size)]).dictionary_encode(),
    ]
    name = rng.choice(["text", "text", "text", "body"])
    sink = io.BytesIO()
    compression = rng.choice(["none", "zstd", "snappy", "gzip"])
    pq.write_table(
        pa.table({name: rng.choice(columns)()}), sink, compression=compression, row_group_size=size // 3 or 1
    )
    return sink.getvalue()


def _python(rng: random.Random, size: int) -> bytes:
    nested = "".join(" " * depth + "class A:\n" for depth in range(rng.choice([1, 30, 150])))
    return rng.choice(
        [f'"""{_text(rng) * 9}"""\n', "x = " + "(" * 20 * size, nested, "def f(:\n", "\x00", "-" * 75 * size]
    ).encode()


_FORMATS = [
    _lines,
    _json_lines,
    _json_lines,
    _deep_json,
    _csv,
    _wiki_dump,
    _deep_markup,
    _doc_blocks,
    _book,
    _parquet,
    _parquet,
    _python,
    lambda rng, size: b"",
    lambda rng, size: rng.randbytes(rng.choice([1, 100, 100 * size])),
    lambda rng, size: _text(rng).encode() * (50 * size),  # a long line
    lambda rng, size: bytes([rng.randrange(256)]) * rng.choice([1, 5000, 30_000 * size]),  # shrinks out of proportion
]


# --- damages ----------------------------------------------------------------------------------------------------------


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randint(0, len(data))]


def _flip(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 1, 5, 50]) if data else 0):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _insert(rng: random.Random, data: bytes) -> bytes:
    place = rng.randint(0, len(data))
    piece = rng.choice(
        [b"\0", b"\0" * 300, b"\xef\xbb\xbf", b"\xff\xfe", b"\x80" * 99, b"\r", b"\n" * 50, b'"', b"<", b"\x1a"]
    )
    return data[:place] + piece + data[place:]


def _recode(rng: random.Random, data: bytes) -> bytes:
    encoding = rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1", "shift-jis", "gb18030", "utf-7", "utf-8-sig"])
    return data.decode(errors="replace").encode(encoding, errors="ignore")


def _splice(rng: random.Random, data: bytes) -> bytes:
    first, second = sorted(rng.randint(0, len(data)) for _ in range(2))
    return rng.choice(
        [data[:first] + data[second:], data[first:], data + data[first:second], data[second:] + data[:first]]
    )


_DAMAGES = [_cut, _flip, _insert, _recode, _splice]
