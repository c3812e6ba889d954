"""Checkpoints (law 12): exact round trips, torn ones, what is kept, and errors of the writing thread."""

import os
import uuid
from pathlib import Path

import pytest
import torch

from infra import storage
from infra.checkpoint import CheckpointWriter, amend, best, latest, load, read_state
from infra.errors import DataError, InfrastructureError

NOTHING = {"state": {}, "param_groups": []}


@pytest.fixture(params=["path", "file", "memory"])
def url(request, tmp_path) -> str:
    memory = f"memory://{uuid.uuid4().hex}"
    return {"path": str(tmp_path / "a b"), "file": f"file://{tmp_path}/a b", "memory": memory}[request.param]


def write(url: str, *steps: int, **settings) -> None:
    """One tiny checkpoint per step, complete when this returns."""
    for step in steps:
        checkpoints = CheckpointWriter(url, keep=9)
        checkpoints.save(step, {"w": torch.full((3,), float(step))}, NOTHING, {}, **settings)
        checkpoints.wait()


def place(url: str, step: int, name: str = "") -> str:
    return storage.join(url, f"step-{step:08d}", *filter(None, [name]))


def steps(url: str) -> list[int]:
    return sorted({int(info.path.split("/")[0].removeprefix("step-")) for info in storage.list_files(url)})


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model after three updates of its fused optimizer, as training has it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 2))
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1 / 3, betas=(0.9, 0.98), fused=True)
    for _ in range(3):
        update(model, optimizer)
    return model, optimizer


def update(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.linspace(-1, 1, 20).reshape(4, 5)).square().sum().backward()
    optimizer.step()


def test_the_best_is_the_complete_one_with_the_lowest_score(url):
    assert best(url) is None
    write(url, 1)
    assert best(url) is None
    for step, score in ((2, 0.5), (3, 0.2), (4, 0.3), (5, 0.1)):
        write(url, step, score=score)
    storage.remove_tree(place(url, 5, "manifest.json"))
    found = best(url)
    assert found is not None
    assert (found.step, found.url) == (3, place(url, 3))
    assert read_state(found.url) == {"step": 3}


def test_a_checkpoint_gets_another_state_and_score_and_keeps_its_tensors(url):
    write(url, 1)
    write(url, 2, score=0.5)
    amend(place(url, 1), {"validated": 1}, score=0.25)
    found = best(url)
    assert found is not None
    assert found.step == 1
    assert load(found.url).state == read_state(found.url) == {"validated": 1, "step": 1}
    assert torch.equal(load(found.url).model["w"], torch.full((3,), 1.0))


def test_a_local_checkpoint_needs_no_room_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    write(str(tmp_path / "run"), 1)
    assert torch.equal(load(place(str(tmp_path / "run"), 1)).model["w"], torch.full((3,), 1.0))


def test_a_round_trip_is_exact_and_training_goes_on_from_it_bit_for_bit(url):
    model, optimizer = trained()
    state = {"best": {"step": 2, "bits_per_byte": 0.1 + 0.2}, "none": None, "name": "größe"}
    checkpoints = CheckpointWriter(url)
    checkpoints.save(3, model.state_dict(), optimizer.state_dict(), state)
    checkpoints.wait()
    found = latest(url)
    assert found is not None
    assert (found.step, found.skipped) == (3, ())
    loaded = load(found.url)
    assert loaded.state == {**state, "step": 3}
    assert loaded.model.keys() == model.state_dict().keys()

    again, its_optimizer = trained()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(loaded.model)
    its_optimizer.load_state_dict(loaded.optimizer)
    for _ in range(3):
        for name, value in model.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name
        assert its_optimizer.state_dict()["param_groups"][0]["lr"] == 1 / 3
        for pair in zip(optimizer.state.values(), its_optimizer.state.values(), strict=True):
            assert all(torch.equal(pair[0][name], pair[1][name]) for name in ("step", "exp_avg", "exp_avg_sq"))
        update(model, optimizer)
        update(again, its_optimizer)


def test_every_kind_of_tensor_and_every_bit_of_it_comes_back(tmp_path):
    model = {
        "odd": torch.tensor([torch.nan, -torch.inf, -0.0, 1e-45]),
        "bf16": torch.tensor([1.0, 3.14159], dtype=torch.bfloat16),
        "int64": torch.tensor([1 << 62, -1]),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "view": torch.arange(12.0).reshape(3, 4).T[1:],
        "same storage": torch.arange(12.0)[:0],
    }
    optimizer = {"state": {0: {"step": 7, "moment": torch.tensor([0.1])}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    checkpoints = CheckpointWriter(str(tmp_path))
    checkpoints.save(1, model, optimizer, {})
    checkpoints.wait()
    loaded = load(str(tmp_path / "step-00000001"))
    assert loaded.model.keys() == model.keys()
    for name, value in model.items():
        back = loaded.model[name]
        assert (back.dtype, back.shape) == (value.dtype, value.shape), name
        assert (
            back.numpy(force=True).tobytes() == value.contiguous().numpy(force=True).tobytes()
            if name != "bf16"
            else (torch.equal(back, value))
        ), name
    assert loaded.optimizer["state"][0]["step"] == 7
    assert torch.equal(loaded.optimizer["state"][0]["moment"], torch.tensor([0.1]))
    assert loaded.optimizer["param_groups"] == optimizer["param_groups"]


def test_training_may_go_on_while_a_checkpoint_is_written(tmp_path):
    weight, moment = torch.zeros(1 << 16), torch.zeros(1 << 16)
    checkpoints = CheckpointWriter(str(tmp_path))
    optimizer = {"state": {0: {"moment": moment}}, "param_groups": []}
    checkpoints.save(1, {"w": weight}, optimizer, {})
    weight.fill_(1)
    moment.fill_(1)
    checkpoints.wait()
    loaded = load(str(tmp_path / "step-00000001"))
    assert loaded.model["w"].max() == 0
    assert loaded.optimizer["state"][0]["moment"].max() == 0


def test_where_nothing_was_written_there_is_nothing(url):
    assert latest(url) is None


def tear_manifest(url: str) -> None:
    storage.remove_tree(place(url, 3, "manifest.json"))


def tear_file(url: str) -> None:
    whole = storage.read_bytes(place(url, 3, "model.safetensors"))
    storage.write_bytes(place(url, 3, "model.safetensors"), whole[:-1])


def lose_file(url: str) -> None:
    storage.remove_tree(place(url, 3, "optimizer.json"))


def garble_manifest(url: str) -> None:
    storage.write_bytes(place(url, 3, "manifest.json"), b'{"files": {')


@pytest.mark.parametrize("tear", [tear_manifest, tear_file, lose_file, garble_manifest])
def test_a_torn_checkpoint_is_skipped_for_the_one_before_and_then_written_again(url, tear):
    write(url, 1, 2, 3)
    tear(url)
    found = latest(url)
    assert found is not None
    assert (found.url, found.step, found.skipped) == (place(url, 2), 2, (place(url, 3),))
    assert load(found.url).model["w"].tolist() == [2.0] * 3
    storage.write_bytes(place(url, 3, "left over"), b"x")
    write(url, 3)
    found = latest(url)
    assert found is not None
    assert (found.step, found.skipped) == (3, ())
    assert not storage.exists(place(url, 3, "left over"))


def test_only_torn_checkpoints_are_none(tmp_path):
    write(str(tmp_path), 3)
    tear_manifest(str(tmp_path))
    assert latest(str(tmp_path)) is None


def test_the_newest_and_the_best_of_those_saved_are_kept(url):
    kept = []
    for step, score in enumerate([5.0, 1.0, None, 3.0, float("nan"), 0.5, 0.7, 0.9], start=1):
        checkpoints = CheckpointWriter(url, keep=2)  # a new one each time, as after a restart
        checkpoints.save(step, {}, NOTHING, {}, score=score)
        checkpoints.wait()
        kept.append(steps(url))
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [2, 4, 5], [5, 6], [6, 7], [6, 7, 8]]


def test_steps_that_stay_are_kept_besides(tmp_path):
    checkpoints = CheckpointWriter(str(tmp_path), keep=1, stay=[2, 5, 9])
    for step in range(1, 8):
        checkpoints.save(step, {"w": torch.zeros(1)}, NOTHING, {})
    checkpoints.wait()
    assert steps(str(tmp_path)) == [2, 5, 7]


def test_without_scores_the_newest_are_kept(tmp_path):
    checkpoints = CheckpointWriter(str(tmp_path), keep=1)
    for step in (2, 4, 10):
        checkpoints.save(step, {}, NOTHING, {})
    checkpoints.wait()
    assert steps(str(tmp_path)) == [10]


def test_a_torn_checkpoint_does_not_count_as_one_that_is_kept(tmp_path):
    write(str(tmp_path), 1, 2, 3, score=1.0)
    tear_file(str(tmp_path))
    checkpoints = CheckpointWriter(str(tmp_path), keep=2)
    checkpoints.save(4, {}, NOTHING, {}, score=2.0)
    checkpoints.wait()
    assert steps(str(tmp_path)) == [2, 4]


def test_what_is_newer_than_the_checkpoint_written_is_left(tmp_path):
    write(str(tmp_path), 1, 3)
    tear_file(str(tmp_path))
    checkpoints = CheckpointWriter(str(tmp_path), keep=1)
    checkpoints.save(2, {}, NOTHING, {})
    checkpoints.wait()
    assert steps(str(tmp_path)) == [2, 3]


@pytest.mark.parametrize("surfaces", ["save", "wait", "check"])
def test_an_error_of_the_writer_surfaces_once_and_the_next_checkpoint_is_written(tmp_path, surfaces):
    in_the_way = Path(tmp_path / "run")
    in_the_way.write_text("a file where the folder should be")
    checkpoints = CheckpointWriter(str(tmp_path / "run" / "checkpoints"))
    checkpoints.save(1, {"w": torch.zeros(1)}, NOTHING, {})

    def check_until_told() -> None:
        while True:
            checkpoints.check()

    surface = {
        "save": lambda: checkpoints.save(2, {}, NOTHING, {}),
        "wait": checkpoints.wait,
        "check": check_until_told,
    }
    with pytest.raises(InfrastructureError, match="a checkpoint could not be written to") as caught:
        surface[surfaces]()
    assert str(tmp_path) in caught.value.message
    assert "the same command" in caught.value.try_
    assert caught.value.__cause__ is not None
    checkpoints.wait()
    in_the_way.unlink()
    checkpoints.save(3, {}, NOTHING, {})
    checkpoints.wait()
    assert steps(str(tmp_path / "run" / "checkpoints")) == [3]


def test_a_write_that_breaks_off_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    write(str(tmp_path), 1)

    def break_off(place: str, manifest: dict) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_json", break_off)
    checkpoints = CheckpointWriter(str(tmp_path))
    checkpoints.save(2, {}, NOTHING, {})
    with pytest.raises(InfrastructureError, match="No space left on device"):
        checkpoints.wait()
    found = latest(str(tmp_path))
    assert found is not None
    assert (found.step, found.skipped) == (1, (place(str(tmp_path), 2),))


@pytest.mark.parametrize("look", [latest, best])
@pytest.mark.parametrize("older", [{"format": 1}, {}, {"format": 3, "shards": ["a"]}])
def test_a_checkpoint_of_another_format_is_told_with_what_to_do(url, look, older):
    """No matter what else its manifest has: an older one had no state in it."""
    write(url, 1, score=1.0)
    write(url, 2, score=0.5)
    storage.write_json(place(url, 2, "manifest.json"), older)
    with pytest.raises(DataError) as caught:
        look(url)
    assert caught.value.message == (
        f"the checkpoint {place(url, 2)} has the format {older.get('format')}; this version reads 2"
    )
    assert caught.value.try_ is not None
    assert "--run.fresh=true" in caught.value.try_
    assert "--run.name" in caught.value.try_


def test_a_torn_checkpoint_of_another_format_is_skipped(url):
    write(url, 1, 2)
    manifest = storage.read_json(place(url, 2, "manifest.json"))
    storage.write_json(place(url, 2, "manifest.json"), {**manifest, "format": 1})
    storage.remove_tree(place(url, 2, "optimizer.json"))
    found = latest(url)
    assert found is not None
    assert (found.step, found.skipped) == (1, (place(url, 2),))


def test_a_power_cut_leaves_no_manifest_of_files_that_are_not_on_the_disk(tmp_path, monkeypatch):
    """Each file in its final size, and the folders that name them, are on the disk before there is a manifest."""
    folder = tmp_path / "checkpoints" / "step-00000007"
    synced: set[tuple[int, int]] = set()
    sync = os.fsync

    def watched(handle: int) -> None:
        status = os.fstat(handle)
        if not (folder / "manifest.json").exists():
            synced.add((status.st_ino, status.st_size))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write(str(tmp_path / "checkpoints"), 7)
    files = sorted(folder.iterdir())
    assert len(files) == 4
    assert {(path.stat().st_ino, path.stat().st_size) for path in files} <= synced
    assert {folder.stat().st_ino, folder.parent.stat().st_ino} <= {inode for inode, _ in synced}
