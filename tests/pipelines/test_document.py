"""Names of documents and decoding of bytes."""

from pipelines.document import Document, Rejected, content_key, decode_utf8, document_id, text_document


def test_document_id_is_stable_and_tells_places_apart():
    assert document_id("wiki", "AA/wiki_00", 0).hex() == "e581e0f06154023c52b53a9a00744094"
    ids = {
        document_id(*place) for place in [("a", "b", 1), ("a", "b", 11), ("a", "b1", 1), ("ab", "", 1), ("a", "b", 0)]
    }
    assert {len(i) for i in ids} == {16}
    assert len(ids) == 5


def test_content_key_sees_words_and_not_white_space():
    assert content_key("a b\n\nc") == content_key(" a\tb c\u00a0\u3000\r\n")
    assert len({content_key(t) for t in ("a b", "a c", "", "b a")}) == 4
    assert 0 <= content_key("x") < 1 << 64


def test_decode_utf8():
    assert decode_utf8(b"\xef\xbb\xbfa\r\nb\rc") == ("a\nb\rc", False)
    assert decode_utf8("Straße 中".encode()) == ("Straße 中", False)
    assert decode_utf8(b"x" * 199 + b"\xff") == ("x" * 199 + "\ufffd", True)
    assert decode_utf8(b"x" * 50 + b"\xff") is None
    assert decode_utf8("\ufffd\ufffd".encode()) == ("\ufffd\ufffd", False)
    assert decode_utf8(b"") == ("", False)


def test_text_document_tells_its_repair():
    assert text_document(b"abc", 7, {"title": "t"}) == Document("abc", 7, {"title": "t"})
    damaged = text_document(b"x" * 199 + b"\xff", 7, {"title": "t"})
    assert damaged == Document("x" * 199 + "\ufffd", 7, {"title": "t", "repaired": "utf8"})
    rejected = text_document("Grüße aus Köln".encode("latin-1"), 3)
    assert isinstance(rejected, Rejected)
    assert (rejected.offset, rejected.reason) == (3, "not_utf8")
