"""The authors' checkpoints (law 14): every form gives their values, the published one is written, bad ones named."""

import json
import math
import pickle
import re
import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import benchmark_modules
from helpers.weights import same_weights

from glm_model import from_pretrained
from glm_model.config import GLMConfig
from glm_model.model import GLM
from glm_model.saved.authors_checkpoint import authors_names, our_names
from glm_model.saved.pretrained import save_authors

parity = benchmark_modules.load("parity")
RANK = "mp_rank_00_model_states.pt"
STORED = "the stored weights"


@pytest.fixture(scope="module")
def golden() -> Path:
    if not (parity.GOLDEN / "thudm_ckpt").exists():
        pytest.skip("the authors' golden checkpoints are not here")
    return parity.GOLDEN


@pytest.fixture
def copied(golden, tmp_path):
    """copied(name): a copy of a golden checkpoint, to be damaged."""
    return lambda name: Path(shutil.copytree(golden / name, tmp_path / name))


def golden_weights(golden: Path) -> dict[str, torch.Tensor]:
    with np.load(golden / "model_parity.npz") as file:
        return {name[2:]: torch.from_numpy(file[name]) for name in file.files if name.startswith("w/")}


def test_every_form_gives_the_authors_values(golden, tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["parity.py", "--json", str(report)])
    parity.main()
    values = json.loads(report.read_text())["values"]
    by_form = {form: {k: v for k, v in values.items() if k.startswith(f"{form}/")} for form in [*parity.FORMS, STORED]}
    assert {form: len(several) for form, several in by_form.items()} == {**dict.fromkeys(parity.FORMS, 11), STORED: 20}
    assert len(values) == 6 * 11 + 20, "and two forms are our exports"
    limits = {"fp16, DeepSpeed": 2e-2, STORED: 1e-4}
    assert {key: value for key, value in values.items() if not value <= limits.get(key.partition("/")[0], 5e-5)} == {}
    assert max(by_form["fp16, DeepSpeed"].values()) > 1e-3, "rounded weights were compared"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(values)
    infill = [len(re.findall(r"\de-\d\d", line)) for line in lines if " infill " in line]
    assert infill == [4] * 6, "logits, loss, gradients, and what is allowed"


def test_the_table_of_parity_fails_beyond_what_is_allowed(golden, monkeypatch):
    found = ({"logits": 1.0}, {"logits": 1.1}, {"loss": 0.0, "logits": float("nan")})
    monkeypatch.setattr(parity, "rows", lambda *_: [("a form", parity.Row(str(d), d, 1.0)) for d in found])
    monkeypatch.setattr(sys, "argv", ["parity.py"])
    with pytest.raises(SystemExit, match="2 cases are beyond what is allowed"):
        parity.main()


def test_the_table_of_parity_says_when_there_is_nothing_to_compare_with(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["parity.py", "--golden", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"holds no model_parity\.npz"):
        parity.main()


@pytest.mark.parametrize(
    "path",
    [
        "thudm_ckpt",
        "thudm_ckpt/1234",
        f"thudm_ckpt/1234/{RANK}",
        "thudm_ckpt/1234/pytorch_model.bin",
        "thudm_ckpt_MP2",
        "thudm_ckpt_MP2/1234",
        "thudm_ckpt_ds_fp16",
    ],
)
def test_checkpoints_of_the_authors_hold_the_golden_weights(golden, path):
    weights = golden_weights(golden)
    if "fp16" in path:
        weights = {name: value.half() for name, value in weights.items()}
    loaded = from_pretrained(str(golden / path), heads=4)
    assert same_weights(loaded, GLM.from_authors_state(weights, heads=4))
    assert (loaded.config.layers, loaded.config.width, loaded.config.positions) == (4, 64, 128)
    assert next(loaded.parameters()).dtype == torch.float32


def test_a_checkpoint_is_read_by_url(golden):
    import fsspec

    fsspec.filesystem("memory").put(str(golden / "thudm_ckpt_MP2"), "/authors", recursive=True)
    loaded = from_pretrained("memory://authors", heads=4)
    assert same_weights(loaded, GLM.from_authors_state(golden_weights(golden), heads=4))


def test_the_published_form_is_written_back_exactly(golden, tmp_path):
    model = from_pretrained(str(golden / "thudm_ckpt"), heads=4)
    save_authors(model, str(tmp_path))
    written = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    theirs = torch.load(golden / "thudm_ckpt/1234/pytorch_model.bin", weights_only=True)
    assert list(written) == list(theirs)
    assert all(torch.equal(written[name], value) for name, value in theirs.items())
    config = json.loads((tmp_path / "config.json").read_text())
    told = ("num_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_sequence_length")
    assert [config[name] for name in told] == [4, 64, 4, 1024, 128]
    assert from_pretrained(str(tmp_path)).config == model.config
    assert same_weights(from_pretrained(str(tmp_path)), model)
    assert from_pretrained(str(tmp_path / "pytorch_model.bin")).config == model.config


@pytest.mark.parametrize("block_positions", [True, False])
def test_the_shape_survives_the_published_form(tmp_path, block_positions):
    model = GLM(GLMConfig(2, 32, 8, 64, 20, block_positions, dropout=0.2, attention_dropout=0.3))
    save_authors(model, str(tmp_path))
    assert from_pretrained(str(tmp_path)).config == model.config
    rows = json.loads((tmp_path / "config.json").read_text())["max_sequence_length"] + block_positions
    assert rows == len(model.position_embedding.weight)


def test_the_authors_heads_are_guessed_with_a_warning_unless_given(golden):
    with pytest.warns(UserWarning, match=r"1 are assumed, one per 64 of width.*give heads \(--heads\)"):
        assert from_pretrained(str(golden / "thudm_ckpt")).config.heads == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_pretrained(str(golden / "thudm_ckpt"), heads=4).config.heads == 4


@pytest.mark.parametrize("prefix", ["glm.", "model.", ""])
def test_task_heads_are_left_out_with_a_warning(golden, prefix):
    state = {f"{prefix}{name}": value for name, value in golden_weights(golden).items()}
    state |= {"pool_layer.bias": torch.zeros(3), "multichoice_head.weight": torch.zeros(1, 3)}
    with pytest.warns(UserWarning, match=r"task heads are left out \(2\): pool_layer\.bias, multichoice"):
        model = GLM.from_authors_state(state, heads=4)
    assert same_weights(model, GLM.from_authors_state(golden_weights(golden), heads=4))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heads", "message"),
    [(0, r"model\.heads=0 must be at least 1"), (-2, "heads=-2 must"), (5, "does not split evenly over model.heads=5")],
)
def test_impossible_heads_are_refused_by_name(golden, heads, message):
    with pytest.raises(ValueError, match=rf"^.*/thudm_ckpt: .*{message}"):
        from_pretrained(str(golden / "thudm_ckpt"), heads=heads)


def test_wrong_and_missing_tensors_of_the_authors_are_named(golden):
    weights = golden_weights(golden)
    del weights["transformer.final_layernorm.bias"]
    weights["transformer.layers.2.attention.dense.bias"] = torch.zeros(3)
    weights["transformer.r_w_bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"final_norm\.bias is missing; transformer\.r_w_bias is not part") as error:
        GLM.from_authors_state(weights, heads=4)
    assert "layers.2.attention_out.bias is [3] and should be [64]" in str(error.value)
    with pytest.raises(ValueError, match=r"no matrix token_embedding\.weight .* not a GLM. .* encoder\.a"):
        GLM.from_authors_state({"encoder.a": torch.zeros(2)})


def test_a_config_of_another_model_is_named(copied):
    folder = copied("thudm_ckpt") / "1234"
    (folder / "config.json").write_text(json.dumps({"num_layers": 24, "num_attention_heads": 4}))
    with pytest.raises(ValueError, match=r"config\.json says num_layers=24, and the weights have 4"):
        from_pretrained(str(folder))
    (folder / "config.json").write_text(json.dumps({"num_layers": 4, "num_attention_heads": 5}))
    with pytest.raises(ValueError, match=r"model\.width=64 does not split evenly over model\.heads=5"):
        from_pretrained(str(folder))


def test_the_tag_may_be_a_word_and_must_be_there(copied):
    folder = copied("thudm_ckpt_MP2")
    (folder / "1234").rename(folder / "best")
    tracker = folder / "latest_checkpointed_iteration.txt"
    with pytest.raises(ValueError, match=r"iteration\.txt names '1234', and .*1234 holds no .*there are best, latest"):
        from_pretrained(str(folder))
    tracker.write_text("best\n")
    assert from_pretrained(str(folder), heads=4).config.layers == 4
    tracker.write_text("\n")
    with pytest.raises(ValueError, match=r"iteration\.txt is empty and should name a folder"):
        from_pretrained(str(folder))
    tracker.unlink()
    (folder / "latest").unlink()
    with pytest.raises(ValueError, match=r"holds no model: .*tracker file \(there are best\)"):
        from_pretrained(str(folder))


@pytest.mark.parametrize("lost", [0, 1])
def test_a_missing_rank_is_named(copied, lost):
    folder = copied("thudm_ckpt_MP2") / "1234"
    (folder / f"mp_rank_{lost:02d}_model_states.pt").unlink()
    with pytest.raises(ValueError, match=rf"mp_rank_{lost:02d}_model_states\.pt.* ?(beside them|and give the folder)"):
        from_pretrained(str(folder), heads=4)


def test_one_rank_given_as_a_file_is_refused(golden):
    file = golden / "thudm_ckpt_MP2" / "1234" / RANK
    with pytest.raises(ValueError, match=r"is 1 of 2 model-parallel ranks: .*\[96, 64\] and should be \[192, 64\]"):
        from_pretrained(str(file), heads=4)


def test_ranks_that_do_not_belong_together_are_named(copied):
    folder = copied("thudm_ckpt_MP2") / "1234"
    second = folder / "mp_rank_01_model_states.pt"
    whole = torch.load(second, weights_only=False)
    name = "transformer.layers.1.mlp.dense_h_to_4h.weight"
    smaller = {**whole["module"], name: whole["module"][name][:5]}
    torch.save({"module": smaller, "iteration": 1234}, second)
    with pytest.raises(ValueError, match=rf"ranks differ in size: {name} is \[5, 64\] in .*01.* and \[128, 64\]"):
        from_pretrained(str(folder), heads=4)
    del smaller[name]
    torch.save({"module": smaller, "iteration": 1234}, second)
    with pytest.raises(ValueError, match=rf"01_model_states\.pt lacks {name}"):
        from_pretrained(str(folder), heads=4)
    torch.save({"module": whole["module"], "iteration": 1200}, second)
    with pytest.raises(ValueError, match=r"ranks of different iterations \(1200, 1234\)"):
        from_pretrained(str(folder), heads=4)


class Calling:
    """When unpickled, asks for a call: of a function that does nothing here. Another file could name any function."""

    def __reduce__(self):
        return math.gcd, (1, 1)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_a_call_is_refused_by_the_name_of_the_function(tmp_path, zipped):
    content = {"module": {}, "extra": Calling()}
    torch.save(content, tmp_path / RANK, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=rf"{RANK} is refused: it needs math\.gcd, which could run code") as error:
        from_pretrained(str(tmp_path))
    assert "write the plain weights again" in str(error.value)
    assert torch.load(tmp_path / RANK, weights_only=False)["extra"] == 1, "without the guard it would have been called"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_plain_pickle_is_refused_without_advice_to_load_it_all_the_same(tmp_path, protocol):
    (tmp_path / "a.bin").write_bytes(pickle.dumps({"module": Calling()}, protocol=protocol))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"a\.bin is refused: .* could run code") as error:
            from_pretrained(str(tmp_path / "a.bin"))
    assert "Weights only load failed" not in str(error.value)
    assert ("weights_only=False" in str(error.value)) == (protocol in (1, 2, 3)), "where it has weights: ours, by name"


def test_a_class_of_a_library_is_refused_by_name(tmp_path):
    torch.save({"module": {}, "args": Path("/x"), "when": __import__("datetime").date(2021, 1, 1)}, tmp_path / "a.bin")
    with pytest.raises(ValueError, match=r"it needs (pathlib|datetime)\.\w+"):
        from_pretrained(str(tmp_path / "a.bin"))


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_arrays_of_old_and_new_numpy_are_read(golden, tmp_path, module):
    states = (np.random.RandomState(1).get_state(), np.arange(3), np.ones(2, np.float32), np.array([True]))
    torch.save({"module": golden_weights(golden), "np_rng_state": states}, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / RANK, "w") as written:
        for entry in new.infolist():
            data = new.read(entry)
            if entry.filename.endswith("data.pkl"):
                names = [f"c{known}.multiarray\n".encode() for known in ("numpy.core", "numpy._core")]
                assert any(name in data for name in names)
                for name in names:
                    data = data.replace(name, f"c{module}.multiarray\n".encode())
            written.writestr(entry.filename, data)
    assert from_pretrained(str(tmp_path), heads=4).config.layers == 4


def test_a_file_of_torch_before_archives_is_read(golden, tmp_path):
    torch.save({"module": golden_weights(golden)}, tmp_path / RANK, _use_new_zipfile_serialization=False)
    loaded = from_pretrained(str(tmp_path), heads=4)
    assert same_weights(loaded, GLM.from_authors_state(golden_weights(golden), heads=4))


def test_damaged_files_and_what_is_no_state_dict_are_refused(golden, tmp_path):
    whole = (golden / "thudm_ckpt" / "1234" / RANK).read_bytes()
    contents = {
        "plain.bin": pickle.dumps({"x": 1}, protocol=2),
        "text.bin": b"not a checkpoint",
        "empty.bin": b"",
        "cut.bin": whole[: len(whole) // 2],
        "tail.bin": whole[:-40],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            from_pretrained(str(tmp_path / name))
    torch.save([torch.zeros(2)], tmp_path / "list.bin")
    with pytest.raises(ValueError, match=r"list\.bin holds no state dict"):
        from_pretrained(str(tmp_path / "list.bin"))
    with pytest.raises(ValueError, match=r"absent\.bin does not exist"):
        from_pretrained(str(tmp_path / "absent.bin"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_changed_bytes_is_read_or_refused_by_name(tmp_path, zipped):
    """Whatever they are of: numbers, names, the pickle's instructions, the archive's directory, its end above all."""
    torch.manual_seed(0)
    state = authors_names(GLM(GLMConfig(1, 8, 2, 16, 4)).state_dict())
    torch.save({"module": state, "iteration": 7}, tmp_path / RANK, _use_new_zipfile_serialization=zipped)
    whole = np.frombuffer((tmp_path / RANK).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    damages = [rng.integers(len(whole), size=1 + number % 6) for number in range(60)]
    damages += [np.array([-1 - number]) for number in range(22)]
    refused = []
    for number, places in enumerate(damages):
        file, data = tmp_path / f"{number}.pt", whole.copy()
        data[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
        file.write_bytes(data.tobytes())
        try:
            from_pretrained(str(file), heads=2)
        except ValueError as error:
            refused.append(str(file) in str(error))
    assert all(refused)
    assert 20 < len(refused) < 70


def test_prefixes_within_one_another_are_removed():
    names = ("module.model.word_embeddings.weight", "model.glm.transformer.final_layernorm.bias")
    assert set(our_names({name: torch.ones(2) for name in names})[0]) == {"token_embedding.weight", "final_norm.bias"}
