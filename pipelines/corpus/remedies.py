"""What to try where documents are dropped, by the reason."""

_MEND = "mend or replace these files"
_OTHER_READER = "choose the reader that fits these files, such as text, jsonl, csv or parquet"
_REMEDIES = {
    "missing_field": "name the field that holds the text, as options: {field: ...} of the source",
    "not_text": "name a field that holds strings, as options: {field: ...} of the source",
    "too_short": "keep shorter texts: --data.clean.min_characters=1; or take a reader that cuts less",
    "language": "add the language of these texts to data.clean.languages, or keep all: --data.clean.languages='[]'",
    "symbol_ratio": "leave this rule out: --data.clean.preset=light",
    "repetition": "leave this rule out: --data.clean.preset=light",
    "not_utf8": "convert these files to UTF-8, for example: iconv -f latin1 -t utf-8 a.txt > b.txt",
    "binary_file": "choose the reader of this format, such as parquet; files inside an archive are read by its own URL",
    "malformed_csv": "give the delimiter and the escape character that these files have, as options of the source",
    "ragged_row": "give the delimiter that these files have, as options: {delimiter: ...} of the source",
    "no_header": "read articles without headers with the reader text",
    "namespace": "name the namespaces that you want, as options: {namespaces: [...]} of the source",
    "empty_file": "check that these files were copied whole: they hold nothing",
    **dict.fromkeys(
        ("malformed_json", "not_an_object", "outside_document", "bad_header", "no_documents"), _OTHER_READER
    ),
    **dict.fromkeys(("unreadable", "vanished", "compression_ratio"), _MEND),
    **dict.fromkeys(("truncated_archive", "truncated_xml", "truncated_json", "unterminated_block"), _MEND),
    **dict.fromkeys(("redirect", "no_text", "not_wikitext"), "take a dump that holds the articles, pages-articles"),
    **dict.fromkeys(("no_documentation", "syntax_error"), "name packages that have documentation"),
}


def remedy(reason: str) -> str:
    """What to try where most documents of a source are dropped for this reason, which a rule of the user's may give."""
    other = f"look at the rule of data.clean.rules that says {reason!r}, or keep every document: data.clean.preset=off"
    return _REMEDIES.get(reason, other)
