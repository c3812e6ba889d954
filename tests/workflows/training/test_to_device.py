"""Micro-batches on the device are the arrays of the host, wherever they are laid out."""

from dataclasses import replace

import pytest
import torch
from helpers import small

from glm_model import GLM, GLMConfig, sized
from glm_model.attention.packed_rows import find_runs
from glm_model.layout import Packed
from glm_model.train import TrainStep
from pipelines.blanks.mixture import BlanksConfig
from pipelines.feed.examples import feed_settings
from pipelines.feed.micro_batches import RowReader, Step, steps
from pipelines.feed.order import BatchPlan
from workflows.training.to_device import page_lock, to_device

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def plan(tiny_store) -> BatchPlan:
    return BatchPlan(tuple(tiny_store.train.group_rows.tolist()), seed=5, micro_rows=2, micro_batches=3, window=3)


@pytest.fixture
def reader(tiny_store, tiny_tokenizer) -> RowReader:
    settings = small.settings_of(tiny_store, tiny_tokenizer)
    return RowReader(tiny_store.train, settings)


def shape_of(store, tokenizer) -> GLMConfig:
    return sized("tiny", vocab_size=tokenizer.padded_vocab_size, positions=store.manifest.sequence_length)


def identities(step: Step) -> list[tuple]:
    return [(index, m.fingerprint, m.tokens, m.counts.tolist()) for index, m in step.micro_batches]


def test_tensors_are_the_arrays_of_the_example(reader, plan):
    micro = reader.micro_batch(plan.micro_batch(0, 0))
    tensors = to_device(micro)
    assert {name: t.tolist() for name, t in tensors.items()} == {
        n: a.tolist() for n, a in micro.example.arrays().items()
    }
    assert {t.dtype for t in tensors.values()} == {torch.int64}


FORMS = {"plain": {}, "left_to_right": {"order": "left_to_right"}, "sentinels": {"mask_tokens": "sentinel"}}
FORMS |= {"noise": {"noise": 0.1}, "in_place": {"mixture": {"masked_lm": 1.0}}}


@pytest.mark.parametrize("form", FORMS)
def test_expansion_on_the_device_gives_what_the_host_gives(tiny_store, tiny_tokenizer, plan, form):
    """Same tensors, same fingerprints and counts; ablations are laid out on the host in both cases."""
    config = BlanksConfig(**FORMS[form])
    on_host = feed_settings(tiny_store, tiny_tokenizer, config)
    on_device = feed_settings(tiny_store, tiny_tokenizer, config, expand_on_device=True)
    fed = [
        steps(RowReader(tiny_store.train, settings), plan, start=0, stop=9, rank=0, world=1)
        for settings in (on_host, on_device)
    ]
    for host_step, device_step in zip(*fed, strict=True):
        assert identities(device_step) == identities(host_step)
        for (_, host), (_, device) in zip(host_step.micro_batches, device_step.micro_batches, strict=True):
            assert isinstance(device.inputs, Packed) == (form in ("plain", "left_to_right"))
            expected = to_device(host)
            for place in DEVICES:
                got = to_device(device, place)
                assert list(got) == list(expected)
                for name, tensor in got.items():
                    assert (tensor.dtype, tensor.device.type) == (expected[name].dtype, place)
                    assert tensor.cpu().equal(expected[name]), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("expand_on_device", [False, True])
def test_the_outline_is_what_the_arrays_say(tiny_store, tiny_tokenizer, plan, form, expand_on_device):
    config = BlanksConfig(**FORMS[form])
    settings = feed_settings(tiny_store, tiny_tokenizer, config, expand_on_device=expand_on_device)
    for step in steps(RowReader(tiny_store.train, settings), plan, start=0, stop=3, rank=0, world=1):
        for _, micro in step.micro_batches:
            batch = to_device(micro, config=shape_of(tiny_store, tiny_tokenizer))
            known, found = batch["outline"], find_runs(batch["segment_ids"], batch["context_end"])
            assert known.runs.table_R4.equal(found.table_R4)
            assert known.at_M.equal(batch["loss_mask"].flatten().nonzero()[:, 0])


@pytest.mark.parametrize("expand_on_device", [False, True])
def test_a_batch_with_an_outline_is_computed_alike_and_checked_on_the_host(
    reader, plan, tiny_store, tiny_tokenizer, expand_on_device
):
    shape = shape_of(tiny_store, tiny_tokenizer)
    settings = replace(reader.settings, expand_on_device=expand_on_device)
    micro = RowReader(reader.split, settings).micro_batch(plan.micro_batch(0, 0))
    torch.manual_seed(0)
    step = TrainStep(GLM(shape), num_objectives=len(micro.counts), precision="fp32").eval()
    known, found = step(to_device(micro, config=shape)), step(to_device(micro))
    assert [part.tolist() for part in known] == [part.tolist() for part in found]
    for few, told in (({"vocab_size": 8}, "tokens holds"), ({"positions": 4}, "position_ids holds")):
        with pytest.raises(ValueError, match=told):
            to_device(micro, config=replace(shape, **few))


@pytest.mark.skipif("cuda" not in DEVICES, reason="waiting for a GPU needs a GPU that torch can use")
@pytest.mark.parametrize("expand_on_device", [False, True])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_no_micro_batch_waits_for_the_gpu(reader, plan, tiny_store, tiny_tokenizer, expand_on_device, precision):
    """By torch's debug mode, in which each synchronisation is an error."""
    shape = shape_of(tiny_store, tiny_tokenizer)
    settings = replace(reader.settings, expand_on_device=expand_on_device)
    feeding = steps(RowReader(reader.split, settings), plan, start=0, stop=2, rank=0, world=1, finish=page_lock)
    first, second = (step.micro_batches for step in feeding)
    step = TrainStep(GLM(shape).cuda(), num_objectives=len(first[0][1].counts), precision=precision)
    for micro_batches, mode in ((first, "default"), (second, "error")):  # kernels are chosen and tried at the first
        torch.cuda.set_sync_debug_mode(mode)
        try:
            for _, micro in micro_batches:
                step(to_device(micro, "cuda", config=shape))[0].sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif("cuda" not in DEVICES, reason="page-locked memory needs a GPU that torch can use")
@pytest.mark.parametrize("expand_on_device", [True, False])
def test_what_a_gpu_fetches_is_page_locked(reader, plan, expand_on_device):
    settings = replace(reader.settings, expand_on_device=expand_on_device)
    feeding = steps(RowReader(reader.split, settings), plan, start=0, stop=1, rank=0, world=1, finish=page_lock)
    plain = steps(RowReader(reader.split, settings), plan, start=0, stop=1, rank=0, world=1)
    for (_, micro), (_, expected) in zip(next(feeding).micro_batches, next(plain).micro_batches, strict=True):
        inputs = micro.inputs
        arrays = [*inputs.batch[:6], inputs.row_offsets] if isinstance(inputs, Packed) else inputs.arrays().values()
        assert all(torch.from_numpy(array).is_pinned() for array in arrays)
        for name, tensor in to_device(micro, "cuda").items():
            assert tensor.cpu().equal(to_device(expected)[name]), name
