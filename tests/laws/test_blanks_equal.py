"""Law 13: stored and online blanks are byte-equal, and the fingerprint of each micro-batch proves it afterwards."""

import shutil
from dataclasses import replace

import pytest
from helpers import small

from pipelines import objectives, plugins
from pipelines.blanks.mixture import MIXTURES
from pipelines.feed.examples import draw_epoch
from pipelines.feed.micro_batches import RowReader
from pipelines.feed.order import BatchPlan
from pipelines.feed.stored_blanks import open_blanks, read_blanks, write_blanks
from pipelines.store.format import TokenStore
from workflows.training.to_device import to_device

ALL = [*MIXTURES, *({name: 1.0} for name in plugins.names(objectives))]


@pytest.fixture
def own_store(tmp_path, tiny_store) -> TokenStore:
    """A copy, for stored blanks that no other test shall find."""
    shutil.copytree(tiny_store.url, tmp_path / "store")
    return TokenStore.open(str(tmp_path / "store"))


@pytest.mark.parametrize("mixture", ALL, ids=str)
def test_stored_and_online_blanks_are_equal(own_store, tiny_tokenizer, mixture):
    settings = small.settings_of(own_store, tiny_tokenizer, mixture=mixture)
    split, stored_at = own_store.train, small.store_blanks(own_store, settings)
    for group, (shard, index) in enumerate(split.group_places):
        file = open_blanks(split, shard, stored_at, epoch=0)
        assert file is not None
        rows = split.read_group(group)
        assert small.contents(read_blanks(file, index, rows)) == small.contents(draw_epoch(rows, settings, 0))
    plan = BatchPlan(tuple(split.group_rows.tolist()), seed=1, micro_rows=3, micro_batches=1)
    stored, online = RowReader(split, stored_at), RowReader(split, settings)
    for step in range(plan.epoch_rows // 3 + 1):  # into the second epoch, of which none are stored
        places = plan.micro_batch(step, 0)
        assert stored.micro_batch(places).fingerprint == online.micro_batch(places).fingerprint


def test_the_fingerprint_tells_changed_blanks(own_store, tiny_tokenizer):
    """The proof is worth something: stored blanks of another seed are seen."""
    settings = small.settings_of(own_store, tiny_tokenizer)
    for shard in range(len(own_store.train.shards)):
        others = replace(settings, blanks_key="other", seed=settings.seed + 1)
        write_blanks(own_store.url, own_store.train, shard, others, epoch=0)
    plan = BatchPlan(tuple(own_store.train.group_rows.tolist()), seed=1, micro_rows=3, micro_batches=3)
    wrong = RowReader(own_store.train, replace(settings, blanks_key="other"))
    right = RowReader(own_store.train, settings)
    for index in range(3):
        places = plan.micro_batch(0, index)
        assert wrong.micro_batch(places).fingerprint != right.micro_batch(places).fingerprint


def test_training_on_stored_and_on_online_blanks_gives_the_same_losses(own_store, tiny_tokenizer):
    import torch

    from glm_model import GLM
    from glm_model.config import sized
    from glm_model.train import TrainStep

    settings = small.settings_of(own_store, tiny_tokenizer)
    stored_at = small.store_blanks(own_store, settings)
    plan = BatchPlan(tuple(own_store.train.group_rows.tolist()), seed=1, micro_rows=3, micro_batches=1)
    losses = []
    for reader in (
        RowReader(own_store.train, stored_at),
        RowReader(own_store.train, settings),
    ):
        torch.manual_seed(0)
        model = GLM(sized("tiny", vocab_size=tiny_tokenizer.padded_vocab_size, positions=64, dropout=0.0))
        step, optimizer = TrainStep(model, num_objectives=3, precision="fp32"), torch.optim.SGD(model.parameters(), 0.1)
        run = []
        for number in range(3):
            sums, _ = step(to_device(reader.micro_batch(plan.micro_batch(number, 0))))
            (sums.sum() / 100).backward()
            optimizer.step()
            optimizer.zero_grad()
            run.append(sums.detach())
        losses.append(torch.stack(run))
    assert torch.equal(*losses)
    assert (losses[0][0] != losses[0][1]).any()
