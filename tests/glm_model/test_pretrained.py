"""Saving and loading: round trips, the authors' checkpoints in every form, refusals that name what is wrong."""

import json
import os
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from glm_model.config import GLMConfig
from glm_model.model import GLM
from glm_model.pretrained import from_authors_state, from_pretrained, save_pretrained

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "golden"


@pytest.fixture
def golden() -> Path:
    if not (GOLDEN / "thudm_ckpt").exists():
        pytest.skip("the authors' golden checkpoints are not here")
    return GOLDEN


@pytest.fixture
def model(small) -> GLM:
    torch.manual_seed(0)
    return GLM(small)


def same_weights(one: GLM, other: GLM) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("place", ["folder with space/ä", "memory://models/one"])
def test_save_and_load_are_inverse_on_disk_and_by_url(model, tmp_path, place):
    url = place if "://" in place else str(tmp_path / place)
    model.save_pretrained(url, card="# Mine")
    loaded = GLM.from_pretrained(url)
    assert loaded.config == model.config
    assert same_weights(loaded, model)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    with fsspec.open(f"{url}/README.md", "r") as file:
        assert file.read() == "# Mine"


def test_a_saved_folder_holds_the_usual_files_and_a_card_of_its_own(model, tmp_path):
    save_pretrained(model, str(tmp_path))
    assert {p.name for p in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert json.loads((tmp_path / "config.json").read_text())["width"] == 32
    assert f"{model.num_parameters():,} parameters" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    "path",
    [
        "thudm_ckpt",
        "thudm_ckpt/1234",
        "thudm_ckpt/1234/mp_rank_00_model_states.pt",
        "thudm_ckpt/1234/pytorch_model.bin",
        "thudm_ckpt_MP2",
        "thudm_ckpt_ds_fp16",
    ],
)
def test_checkpoints_of_the_authors_hold_the_golden_weights(golden, path):
    with np.load(golden / "model_parity.npz") as file:
        weights = {name[2:]: torch.from_numpy(file[name]) for name in file.files if name.startswith("w/")}
    if "fp16" in path:
        weights = {name: value.half() for name, value in weights.items()}
    loaded = from_pretrained(str(golden / path), heads=4)
    assert same_weights(loaded, from_authors_state(weights, heads=4))
    assert (loaded.config.layers, loaded.config.width, loaded.config.positions) == (4, 64, 128)
    assert next(loaded.parameters()).dtype == torch.float32


def test_the_authors_heads_are_one_per_64_of_width_unless_given(golden):
    assert from_pretrained(str(golden / "thudm_ckpt")).config.heads == 1


class Malicious:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_a_pickle_that_would_run_code_is_refused_by_name(tmp_path):
    torch.save({"module": {}, "extra": Malicious()}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(ValueError, match=r"mp_rank_00_model_states.pt is refused: it needs posix.system"):
        from_pretrained(str(tmp_path))


def test_a_plain_pickle_and_a_damaged_file_are_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(pickle.dumps({"x": 1}))
    (tmp_path / "b.bin").write_bytes(b"not a checkpoint")
    for name in ("a.bin", "b.bin"):
        with pytest.raises(ValueError, match=name):
            from_pretrained(str(tmp_path / name))


def test_weights_that_do_not_fit_are_named(model, tmp_path, small):
    model.save_pretrained(str(tmp_path))
    other = GLMConfig(**{**small.to_dict(), "positions": 20, "layers": 1})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "glm-blank-infilling", **other.to_dict()}))
    with pytest.raises(ValueError, match="do not fit the model") as error:
        from_pretrained(str(tmp_path))
    assert "layers.1.attention_norm.weight is not part of this model; layers.1.attention_out.bias is" in str(
        error.value
    )
    assert "more" in str(error.value)


def test_wrong_and_missing_tensors_of_the_authors_are_named(golden):
    with np.load(golden / "model_parity.npz") as file:
        weights = {name[2:]: torch.from_numpy(file[name]) for name in file.files if name.startswith("w/")}
    del weights["transformer.final_layernorm.bias"]
    weights["transformer.layers.2.attention.dense.bias"] = torch.zeros(3)
    weights["pool_layer.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"final_norm\.bias is missing; pool_layer\.bias is not part") as error:
        from_authors_state(weights, heads=4)
    assert "layers.2.attention_out.bias is [3] and should be [64]" in str(error.value)


def test_a_damaged_safetensors_file_an_unfinished_and_an_empty_folder_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        from_pretrained(str(tmp_path))
    model.save_pretrained(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        from_pretrained(str(tmp_path))
    weights.unlink()
    with pytest.raises(ValueError, match=r"there is no .*model.safetensors"):
        from_pretrained(str(tmp_path))
