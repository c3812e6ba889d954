"""tokenizer_config.json beside a model, as transformers' AutoTokenizer reads it."""

import json

import torch

from glm_model import save_pretrained
from glm_model.config import GLMConfig
from glm_model.model import GLM
from glm_model.saved.tokenizer_config import tokenizer_config
from glm_model.tokenizer import Tokenizer


def written(id_: int, content: str, **flags) -> dict:
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id_, "content": content, **usual, **flags}


def roberta_like() -> Tokenizer:
    """Roles under names of their own, no task masks, and a word that stands for text."""
    added = [written(0, "<s>"), written(1, "</s>"), written(2, "<unk>"), written(3, "<mask>")]
    added += [written(5, "a b", special=False), written(6, "<|startofpiece|>"), written(7, "<|endofpiece|>")]
    model = {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "<unk>": 2, "<mask>": 3, "a": 4}, "merges": []}
    return Tokenizer(json.dumps({"added_tokens": added, "model": model}))


def test_the_roles_have_the_names_of_tokenizer_json():
    def token(content: str, **flags) -> dict:
        return {name: value for name, value in written(0, content, **flags).items() if name != "id"}

    assert tokenizer_config(roberta_like(), positions=512) == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
        "pad_token": "</s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "mask_token": "<mask>",
        "unk_token": "<unk>",
        "additional_special_tokens": ["<|startofpiece|>", "<|endofpiece|>"],
        "added_tokens_decoder": {
            "0": token("<s>"),
            "1": token("</s>"),
            "2": token("<unk>"),
            "3": token("<mask>", lstrip=True),
            "5": token("a b", special=False),
            "6": token("<|startofpiece|>"),
            "7": token("<|endofpiece|>"),
        },
    }


def test_it_is_written_with_the_model_and_goes_with_its_tokenizer(small: GLMConfig, tmp_path):
    torch.manual_seed(0)
    model, tokenizer = GLM(small), roberta_like()
    save_pretrained(model, str(tmp_path), tokenizer)
    content = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert content == tokenizer_config(tokenizer, positions=small.positions)
    save_pretrained(model, str(tmp_path))
    assert not (tmp_path / "tokenizer_config.json").exists()
