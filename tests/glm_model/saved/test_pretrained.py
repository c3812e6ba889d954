"""Our folders: round trips by path and URL, shards, what lies beside the weights, refusals that name what is wrong."""

import json
import os
import subprocess
import sys

import fsspec
import pytest
import safetensors.torch
import torch
from helpers.weights import same_weights

from glm_model import from_pretrained, save_pretrained
from glm_model.config import GLMConfig
from glm_model.model import GLM
from glm_model.saved.pretrained import save_authors
from glm_model.tokenizer import Tokenizer

FILES = {"config.json", "model.safetensors", "README.md"}


@pytest.fixture
def model(small) -> GLM:
    torch.manual_seed(0)
    return GLM(small)


@pytest.fixture
def saved(model, tmp_path):
    save_pretrained(model, str(tmp_path))
    return tmp_path


def test_loading_and_reading_leave_the_compiler_of_torch_out(saved):
    code = f"""
import sys, torch, glm_model
ids = torch.zeros(1, 3, dtype=torch.int64)
with torch.inference_mode():
    glm_model.from_pretrained({str(saved)!r})(ids, ids, ids)
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize("shard_bytes", [5_000_000_000, 20_000, 1])
@pytest.mark.parametrize("place", ["folder with space/ä", "memory://models/one"])
def test_save_and_load_are_inverse_on_disk_and_by_url(model, tmp_path, place, shard_bytes):
    url = place if "://" in place else str(tmp_path / place)
    save_pretrained(model, url, card="# Mine", shard_bytes=shard_bytes)
    loaded = GLM.from_pretrained(url)
    assert loaded.config == model.config
    assert same_weights(loaded, model)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    with fsspec.open(f"{url}/README.md", "r") as file:
        assert file.read() == "# Mine"


def test_a_saved_folder_holds_the_usual_files_and_a_card_of_its_own(model, saved, tiny_tokenizer):
    assert {p.name for p in saved.iterdir()} == FILES
    assert json.loads((saved / "config.json").read_text())["width"] == 32
    assert f"{model.num_parameters():,} parameters" in (saved / "README.md").read_text()
    save_pretrained(model, str(saved), tiny_tokenizer)
    assert {p.name for p in saved.iterdir()} == {*FILES, "tokenizer.json", "tokenizer_config.json"}
    assert Tokenizer.load(str(saved)).special == tiny_tokenizer.special


@pytest.mark.skipif(os.name != "posix", reason="permissions of files are POSIX's")
def test_all_files_may_be_read_by_whom_the_umask_lets(model, tmp_path):
    before = os.umask(0o022)
    try:
        save_pretrained(model, str(tmp_path))
    finally:
        os.umask(before)
    assert {p.name: oct(p.stat().st_mode & 0o777) for p in tmp_path.iterdir()} == dict.fromkeys(FILES, "0o644")


def test_shards_have_the_usual_names_sizes_and_index(model, tmp_path):
    save_pretrained(model, str(tmp_path), shard_bytes=20_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(p.name for p in tmp_path.glob("model-*.safetensors"))
    assert shards == [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    assert len(shards) > 3
    assert not (tmp_path / "model.safetensors").exists()
    where = {name: shard for shard in shards for name in safetensors.torch.load_file(tmp_path / shard)}
    assert index["weight_map"] == where
    assert set(where) == set(model.state_dict())
    assert index["metadata"]["total_size"] == 4 * model.num_parameters()
    for shard in shards:
        tensors = safetensors.torch.load_file(tmp_path / shard)
        assert len(tensors) == 1 or sum(4 * t.numel() for t in tensors.values()) <= 20_000


def test_a_later_save_leaves_nothing_of_an_earlier_one(model, tmp_path):
    url = str(tmp_path)
    save_pretrained(model, url, shard_bytes=20_000)
    with torch.no_grad():
        model.final_norm.bias.fill_(3.0)
    loaded = from_pretrained(url)  # whose tensors must not change with the files
    save_pretrained(model, url)
    assert {p.name for p in tmp_path.iterdir()} == FILES
    assert same_weights(from_pretrained(url), model)
    assert loaded.final_norm.bias.abs().max() == 0
    save_pretrained(loaded, url, shard_bytes=20_000)
    assert same_weights(from_pretrained(url), loaded)


def test_an_interrupted_save_leaves_an_unfinished_folder(model, saved, monkeypatch):
    monkeypatch.setattr("safetensors.torch.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(model, str(saved))
    monkeypatch.undo()
    assert not [p for p in saved.iterdir() if p.name.startswith(".tmp")]
    with pytest.raises(ValueError, match="holds no model"):
        from_pretrained(str(saved))
    save_pretrained(model, str(saved))
    (saved / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json, which is written last: it is unfinished"):
        from_pretrained(str(saved))


def test_weights_in_half_precision_become_fp32(model, saved):
    half = {name: value.half() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(half, saved / "model.safetensors")
    loaded = from_pretrained(str(saved)).state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], value.float()) for name, value in half.items())


def test_weights_that_do_not_fit_are_named(model, saved, small):
    other = GLMConfig(**{**small.to_dict(), "positions": 20, "layers": 1})
    (saved / "config.json").write_text(json.dumps({"model_type": "glm-blank-infilling", **other.to_dict()}))
    with pytest.raises(ValueError, match=rf"^{saved}: the weights do not fit the model") as error:
        from_pretrained(str(saved))
    text = str(error.value)
    assert "layers.1.attention_norm.weight is not part of this model; layers.1.attention_out.bias is" in text
    assert "more. It has 1 layers of width 32" in text


@pytest.mark.parametrize(
    ("keep", "what"), [(-10, "is damaged"), (5, "is damaged"), (0, "is damaged"), (None, "does not exist")]
)
def test_a_damaged_or_absent_file_of_weights_is_named(saved, keep, what):
    weights = saved / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if keep is not None:
        weights.write_bytes(content[:keep])
    with pytest.raises(ValueError, match=rf"model\.safetensors {what}"):
        from_pretrained(str(saved))


def test_shards_that_do_not_belong_together_are_named(model, tmp_path):
    save_pretrained(model, str(tmp_path), shard_bytes=20_000)
    index = tmp_path / "model.safetensors.index.json"
    first = next(tmp_path.glob("model-00001-*"))
    kept, listed = first.read_bytes(), index.read_text()
    first.unlink()
    with pytest.raises(
        ValueError, match=rf"index\.json names {first.name}, and it is not there .* Copy what is missing"
    ):
        from_pretrained(str(tmp_path))
    safetensors.torch.save_file({"other": torch.zeros(2)}, first)
    with pytest.raises(ValueError, match=rf"{first.name} lacks token_embedding\.weight, which .* says is there"):
        from_pretrained(str(tmp_path))
    first.write_bytes(kept[:100])
    with pytest.raises(ValueError, match=rf"{first.name} is damaged"):
        from_pretrained(str(tmp_path))
    for text, why in (
        (listed[:50], "is not valid JSON"),
        ("{}", "has no weight_map"),
        ("[]", "expected a JSON object, got a list"),
    ):
        index.write_text(text)
        with pytest.raises(ValueError, match=rf"index\.json:? {why}"):
            from_pretrained(str(tmp_path))


def test_a_config_with_a_wrong_key_and_an_empty_folder_are_refused(saved, tmp_path):
    config = saved / "config.json"
    config.write_text(config.read_text().replace("heads", "haeds"))
    with pytest.raises(ValueError, match="no key 'haeds'; did you mean 'heads'"):
        from_pretrained(str(saved))
    with pytest.raises(ValueError, match=r"holds no model.*Give the folder that was saved"):
        from_pretrained(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="shard_bytes=0 must be at least 1"):
        save_pretrained(GLM(GLMConfig(1, 8, 1, 16)), str(tmp_path / "x"), shard_bytes=0)


def test_places_that_hold_no_model_or_cannot_are_named(model, tmp_path):
    save_pretrained(model, str(tmp_path / "run" / "model"))
    same_weights(from_pretrained(str(tmp_path / "run")), model)
    for act in (from_pretrained, lambda url: save_pretrained(model, url), lambda url: save_authors(model, url)):
        with pytest.raises(ValueError, match=r"the place of the model is an empty string\. Give a folder, or a URL"):
            act("")
        with pytest.raises(ValueError, match=r"cannot read or write nope://x.* \(Protocol not known: nope"):
            act("nope://x")
    (tmp_path / "file").write_text("dear")
    for save in (save_pretrained, save_authors):
        with pytest.raises(ValueError, match=r"file is a file, and a model is saved to a folder\. Give another place"):
            save(model, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "dear"


def test_heads_of_a_folder_of_ours_are_its_own(saved):
    assert from_pretrained(str(saved), heads=2).config.heads == 2
    with pytest.raises(ValueError, match=r"heads=4, and its config\.json says heads=2\. Leave heads out"):
        from_pretrained(str(saved), heads=4)


def test_a_tokenizer_with_more_ids_than_rows_is_not_saved(tmp_path, tiny_tokenizer):
    model = GLM(GLMConfig(1, 8, 1, tiny_tokenizer.vocab_size - 1))
    for save in (save_pretrained, save_authors):
        with pytest.raises(ValueError, match=r"the tokenizer has \d+ ids and the model \d+ rows.*grow_vocabulary"):
            save(model, str(tmp_path / "x"), tiny_tokenizer)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("first", ["ours", "authors"])
def test_one_form_saved_over_the_other_leaves_nothing_of_it(small, tmp_path, tiny_tokenizer, first):
    torch.manual_seed(0)
    old, new = GLM(small), GLM(small)
    saves = {"ours": save_pretrained, "authors": save_authors}
    second = next(name for name in saves if name != first)
    saves[first](old, str(tmp_path), tiny_tokenizer)
    saves[second](new, str(tmp_path))
    loaded = from_pretrained(str(tmp_path), heads=small.heads)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), new.parameters(), strict=True))
    names = {path.name for path in tmp_path.iterdir()}
    weights = {"ours": "model.safetensors", "authors": "pytorch_model.bin"}
    assert names == {weights[second], "config.json", "README.md"}


def test_the_authors_form_is_fp32(small, tmp_path):
    save_authors(GLM(small).bfloat16(), str(tmp_path))
    assert {value.dtype for value in torch.load(tmp_path / "pytorch_model.bin").values()} == {torch.float32}
