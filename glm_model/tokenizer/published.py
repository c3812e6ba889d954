"""Read published vocabularies into one tokenizer.json form, with GLM's special tokens among its added tokens.

Pure functions on the parsed JSON ("spec"). They take a few milliseconds, besides the time to read the file.
"""

from __future__ import annotations

import json
import re
from typing import Any

import fsspec

from glm_model.tokenizer import vocab_txt

MASK, SMASK, GMASK = "[MASK]", "[sMASK]", "[gMASK]"
SOP, EOP, CLS = "<|startofpiece|>", "<|endofpiece|>", "[CLS]"
# What a folder is searched for, in this order.
VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "cog-pretrain.model",
    "tokenizer.model",
    "spiece.model",
)
PROMPT_MASKS = re.compile(r"(\[MASK\]|\[sMASK\]|\[gMASK\])")

# role -> (our surface, surfaces under which published vocabularies hold it). Roles that a vocabulary lacks are appended
# in this order, which gives the ids of the authors' checkpoints for BERT, GPT-2 and RoBERTa alike. GLM does not use
# [SEP]; it only fills the place that the authors gave it.
_ROLES: dict[str, tuple[str, ...]] = {
    "pad": ("[PAD]", "</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>"),
    "sop": (SOP,),
    "eop": (EOP,),
    "cls": (CLS, "<s>", "<|begin_of_text|>", "<bos>"),
    "mask": (MASK, "<mask>"),
    "sep": ("[SEP]", "</s>"),
    "unk": ("[UNK]", "<unk>"),
    "gmask": (GMASK,),
    "smask": (SMASK,),
}
_OPTIONAL_ROLES = ("sep", "unk")
_TASK_MASKS = ("gmask", "smask")
# What tokenizer_config.json calls tokenizers with GPT-2's pattern; Qwen2's and CLIP's files look alike and have others.
_LIKE_GPT2 = ("", "GPT2", "Roberta", "Bart", "Longformer", "LED", "Blenderbot", "CodeGen", "PreTrained")
# Tokenizers that put other tokens in front of a SentencePiece model's pieces.
_MOVED_PIECES = (
    *("XLMRoberta", "Camembert", "MBart", "MBart50", "XGLM", "Nllb", "Barthez", "M2M100", "Pegasus", "Bartpho"),
)
_ROLE_SURFACES = frozenset(surface for surfaces in _ROLES.values() for surface in surfaces)


def read_spec(url: str, lowercase: bool | None = None) -> dict[str, Any]:
    """The tokenizer.json of a published vocabulary, parsed: `Tokenizer.load` says which forms there are."""
    file_url = _vocabulary_file(url)
    is_bert = file_url.endswith(".txt") and "merges" not in file_url.rsplit("/", 1)[-1]
    if lowercase is not None and not is_bert:
        raise ValueError(
            f"lowercase={lowercase} is for a vocab.txt, which does not say it, and {file_url} does. Leave lowercase out"
        )
    if file_url.endswith(".model"):
        return _sentencepiece(file_url)
    content = _read_text(file_url)
    is_json = file_url.endswith(".json")
    spec = _json_object(content, file_url) if is_json else {}
    if isinstance(spec.get("model"), dict):  # in GPT-2's vocab.json "model" is a token with its id
        if not spec["model"].get("vocab"):
            raise no_tokenizer(file_url, "its model has no vocab")
        return spec
    settings = _json_beside(file_url, "tokenizer_config.json")
    if is_json:
        if not spec or not all(isinstance(id_, int) for id_ in spec.values()):
            raise no_tokenizer(file_url, "it has neither a model nor tokens with their ids")
        merges = _read_text(_sibling(file_url, "vocab", "merges", ".json", ".txt"))
        spec = _byte_level_bpe(spec, merges, settings, file_url)
    elif content.startswith("#version") or "merges" in file_url.rsplit("/", 1)[-1]:
        vocab_text = _read_text(_sibling(file_url, "merges", "vocab", ".txt", ".json"))
        spec = _byte_level_bpe(_json_object(vocab_text, file_url), content, settings, file_url)
    else:
        spec = vocab_txt.spec_of(content, settings, lowercase=lowercase, url=file_url)
    return {**spec, "added_tokens": spec["added_tokens"] + _added_beside(spec, settings, file_url)}


def _sentencepiece(url: str) -> dict[str, Any]:
    from glm_model.tokenizer.sentencepiece_model import spec_of

    settings = _json_beside(url, "tokenizer_config.json")
    if _kind(settings) in _MOVED_PIECES:
        raise ValueError(
            f"the ids of the model are not those of {url}: the tokenizer_config.json beside it says "
            f"{_kind(settings)}Tokenizer, which moves them. Give its tokenizer.json instead"
        )
    spec = spec_of(_read_bytes(url), url)
    return {**spec, "added_tokens": spec["added_tokens"] + _added_beside(spec, settings, url)}


def _kind(settings: dict[str, Any]) -> str:
    return str(settings.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")


def no_tokenizer(url: str, why: str) -> ValueError:
    """The error about a file (or the file of a folder) that is there and cannot be used."""
    return ValueError(
        f"{_vocabulary_file(url)} is damaged or holds no tokenizer ({why}). Copy it again; it should be a "
        "tokenizer.json, or a vocab.json with its merges.txt beside it"
    )


def _json_object(content: str, url: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        raise no_tokenizer(url, f"not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise no_tokenizer(url, f"expected a JSON object, got a {type(value).__name__}")
    return value


def _vocabulary_file(url: str) -> str:
    """The file to read for a file or folder URL."""
    if url.endswith((".json", ".txt", ".model")):
        return url
    try:
        fs, path = fsspec.core.url_to_fs(url)
        found = [name for name in VOCABULARY_FILES if fs.exists(f"{path.rstrip('/')}/{name}")]
    except (OSError, ImportError, ValueError) as error:  # ValueError: a protocol that fsspec does not know
        raise _missing(url, str(error)) from error
    if not found:
        raise _missing(url, f"no {', '.join(VOCABULARY_FILES)} there")
    return f"{url.rstrip('/')}/{found[0]}"


def _read_bytes(url: str) -> bytes:
    try:
        with fsspec.open(url, "rb") as file:
            return file.read()  # pyright: ignore[reportAttributeAccessIssue]
    except (OSError, ImportError, ValueError) as error:
        raise _missing(url, f"{type(error).__name__}: {error}") from error


def _read_text(url: str) -> str:
    try:
        return _read_bytes(url).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{url} is not a text file ({error}). Give a tokenizer.json, vocab.json or vocab.txt"
        ) from error


def _missing(url: str, why: str) -> ValueError:
    return ValueError(
        f"cannot read a tokenizer from {url} ({why}). Give a folder or a file, such as /path/vocab.txt, or a URL such "
        "as https://huggingface.co/bert-base-uncased/resolve/main/tokenizer.json"
    )


def _json_beside(url: str, name: str) -> dict[str, Any]:
    """The JSON object of this name in the folder of a file; {} where there is none."""
    folder, slash, _ = url.rpartition("/")
    place = f"{folder}{slash}{name}"
    fs, path = fsspec.core.url_to_fs(place)
    return _json_object(_read_text(place), place) if fs.exists(path) else {}


def _added_beside(spec: dict[str, Any], settings: dict[str, Any], url: str) -> list[dict[str, Any]]:
    """The tokens that users added to a vocab.txt or vocab.json: those in tokenizer_config.json, else in
    added_tokens.json, which leaves it to special_tokens_map.json to say which of them are special.
    """
    added = [{**token, "id": int(id_)} for id_, token in (settings.get("added_tokens_decoder") or {}).items()]
    if not added and (ids := _json_beside(url, "added_tokens.json")):
        special = json.dumps(_json_beside(url, "special_tokens_map.json"))
        added = [{"id": id_, "content": name, "special": json.dumps(name) in special} for name, id_ in ids.items()]
    known = {token["content"] for token in spec["added_tokens"]}
    return [token for token in added if token["content"] not in known]


def _sibling(url: str, word: str, other: str, suffix: str, other_suffix: str) -> str:
    """gpt2-vocab.json -> gpt2-merges.txt, and back."""
    folder, slash, name = url.rpartition("/")
    if word not in name:
        raise _missing(
            url, f"a vocab.json needs its merges.txt beside it, and without {word!r} in {name!r} that cannot be found"
        )
    return folder + slash + name.replace(word, other).removesuffix(suffix) + other_suffix


def _byte_level_bpe(vocab: dict[str, int], merges: str, settings: dict[str, Any], url: str) -> dict[str, Any]:
    kind = _kind(settings)
    if kind not in _LIKE_GPT2:
        raise ValueError(
            f"{url} is not cut as GPT-2 cuts text: the tokenizer_config.json beside it says {kind}Tokenizer. Give its "
            "tokenizer.json instead"
        )
    prefix = bool(settings.get("add_prefix_space", False))
    byte_level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
    lines = [line.rstrip("\r") for line in merges.split("\n")]
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    roberta = "<s>" in vocab and "</s>" in vocab
    names = ("<s>", "<pad>", "</s>", "<unk>", "<mask>") if roberta else ("<|endoftext|>",)
    return {
        "added_tokens": _known(vocab, names),
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": pairs,
        },
    }


def _known(vocab: dict[str, int], names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{"id": vocab[name], "content": name} for name in names if name in vocab]


def with_special_tokens(spec: dict[str, Any], *, task_masks: bool | None = None) -> dict[str, Any]:
    """A tokenizer.json in our form: all roles among its added tokens, and nothing that cuts, pads or wraps texts.

    task_masks: whether to have [gMASK] and [sMASK]. None: as the file has them if it has GLM's other tokens, else yes.
    """
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(spec.get("added_tokens") or []),
        "normalizer": spec.get("normalizer"),
        "pre_tokenizer": spec.get("pre_tokenizer"),
        "post_processor": None,
        "decoder": spec.get("decoder"),
        "model": _without_dropout(spec["model"]),
    }
    if task_masks is False:
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in (GMASK, SMASK)]
    roles = special_roles(spec)
    without = task_masks is False or (task_masks is None and {"sop", "eop"} <= roles.keys())
    missing = [role for role in _ROLES if role not in roles and not (without and role in _TASK_MASKS)]
    if set(missing) - set(_OPTIONAL_ROLES):
        first = vocabulary_size(spec)
        spec["added_tokens"] += [{"id": first + i, "content": _ROLES[role][0]} for i, role in enumerate(missing)]
    eats_space = spec["model"]["type"] != "WordPiece"
    spec["added_tokens"] = [
        _text_token(token) if is_text(token) else _control_token(token, eats_space)
        for token in sorted(spec["added_tokens"], key=lambda token: token["id"])
    ]
    return spec


def is_text(added_token: dict[str, Any]) -> bool:
    """Whether an added token stands for text: its authors say so (`special: false`), and it has no role in GLM."""
    return added_token.get("special") is False and added_token["content"] not in _ROLE_SURFACES


def text_tokens(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that stand for text: words of a domain, runs of spaces, line breaks."""
    return [token for token in spec["added_tokens"] if is_text(token)]


def _text_token(token: dict[str, Any]) -> dict[str, Any]:
    """As its authors have it. normalized: found in the text after normalisation, with its own content normalised."""
    flags = {name: bool(token.get(name, False)) for name in ("single_word", "lstrip", "rstrip")}
    kept = {"id": token["id"], "content": token["content"], **flags}
    return {**kept, "normalized": bool(token.get("normalized", True)), "special": False}


def _control_token(token: dict[str, Any], eats_space: bool) -> dict[str, Any]:
    return {
        "id": token["id"],
        "content": token["content"],
        "single_word": False,
        "lstrip": eats_space and token["content"] in (MASK, SMASK, GMASK, "<mask>"),
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _without_dropout(model: dict[str, Any]) -> dict[str, Any]:
    """BPE's dropout draws other merges at every call: for training by its authors, and no store could be made again."""
    return {**model, "dropout": None} if model.get("dropout") else model


def special_roles(spec: dict[str, Any]) -> dict[str, int]:
    """The id of each role that the added tokens fill."""
    ids = {token["content"]: token["id"] for token in spec["added_tokens"]}
    found = {role: [ids[name] for name in names if name in ids] for role, names in _ROLES.items()}
    return {role: matches[0] for role, matches in found.items() if matches}


def vocabulary_size(spec: dict[str, Any]) -> int:
    """Number of ids: the largest one, of text or added, plus one."""
    vocab = spec["model"]["vocab"]
    last_text = max(vocab.values()) if isinstance(vocab, dict) else len(vocab) - 1
    return max([last_text, *(token["id"] for token in spec["added_tokens"])]) + 1
