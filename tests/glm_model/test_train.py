"""A training step's parts: accumulation (law 8), empty batches, schedule, decay, loss weights, dropout seeds."""

import copy
import functools
from pathlib import Path

import pytest
import torch

from glm_model.config import GLMConfig, OptimConfig
from glm_model.loss import blank_loss, find_blanks
from glm_model.model import GLM, Execution
from glm_model.train import (
    LossOptions,
    TrainStep,
    clip_gradients,
    learning_rate,
    loss_scales,
    make_optimizer,
    objective_weights,
    peak_flops,
    resolve_precision,
    seed_dropout,
)

SHARES = torch.tensor([0.7, 0.3])


def rows(batch, start, stop):
    return {name: value[start:stop] for name, value in batch.items()}


def gradients(step: TrainStep, batch, pieces: int) -> dict[str, torch.Tensor]:
    """Gradients of one optimizer step whose batch is cut into equal micro-batches."""
    step.zero_grad()
    counts = sum(torch.bincount(batch["objective_ids"][batch["loss_mask"] == 1], minlength=2)[None])
    size = len(batch["tokens"]) // pieces
    for i in range(pieces):
        sums, _ = step(rows(batch, i * size, (i + 1) * size))
        (sums * loss_scales(counts, SHARES)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in step.named_parameters()}


@pytest.fixture
def step(small) -> TrainStep:
    torch.manual_seed(0)
    return TrainStep(GLM(small), num_objectives=2, precision="fp32")


@pytest.fixture
def batch(packed):
    return packed([[12, 9], [10], [14, 8], [9, 9, 8], [20], [11], [8, 12], [10, 10]], width=40)


def test_law_8_accumulation_is_invisible(step, batch):
    whole = gradients(step, batch, 1)
    for pieces in (2, 4, 8):
        for name, gradient in gradients(step, batch, pieces).items():
            torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_step_counts_blanks_per_objective(step, batch):
    sums, counts = step(batch)
    expected = [int(((batch["objective_ids"] == o) & (batch["loss_mask"] == 1)).sum()) for o in range(2)]
    assert counts.tolist() == expected
    assert counts.sum() == batch["loss_mask"].sum()
    assert (sums / counts).tolist() == pytest.approx([4.16, 4.16], abs=0.1)  # ln 64: an untrained model


def test_the_step_leaves_out_nothing_that_its_loss_needs(step, batch):
    """It computes the last layer at the blanks alone: sums and gradients are those of the whole."""
    names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
    x_BLD = step.model.hidden(*(batch[name] for name in names))
    asked = (batch[name] for name in ("targets", "loss_mask", "objective_ids"))
    blanks = find_blanks(*asked, vocab_size=64, num_objectives=2)
    whole, _ = blank_loss(step.model, x_BLD.flatten(0, 1)[blanks.at_M], blanks)
    whole.sum().backward()
    expected = [p.grad.clone() for p in step.parameters()]
    step.zero_grad()
    sums, _ = step(batch)
    sums.sum().backward()
    torch.testing.assert_close(sums, whole, rtol=1e-6, atol=1e-5)
    for parameter, want in zip(step.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, want, rtol=1e-5, atol=1e-5)


def test_an_empty_micro_batch_adds_nothing_and_still_reaches_every_parameter(step, batch):
    empty = {name: torch.zeros_like(value[:1]) for name, value in batch.items()}
    empty["segment_ids"] -= 1
    sums, counts = step(empty)
    (sums * loss_scales(counts, SHARES)).sum().backward()
    assert sums.tolist() == [0, 0]
    assert counts.tolist() == [0, 0]
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in step.parameters())


def test_training_lowers_the_loss_in_fp32_and_bf16(batch, small):
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        step = TrainStep(GLM(small), num_objectives=2, precision=precision)
        optimizer = make_optimizer(step, OptimConfig(lr=1e-2))
        losses = []
        for _ in range(12):
            sums, counts = step(batch)
            loss = (sums * loss_scales(counts, SHARES)).sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < 0.75 * losses[0], precision


def test_decay_spares_biases_and_norms_only(small):
    model = GLM(small)
    decayed, spared = make_optimizer(model, OptimConfig(weight_decay=0.2)).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.2, 0.0)
    assert {names[id(p)].split(".")[-2] for p in decayed["params"]} == {
        "token_embedding",
        "position_embedding",
        "block_position_embedding",
        "qkv",
        "attention_out",
        "mlp_in",
        "mlp_out",
    }
    assert all(n.endswith(".bias") or "norm" in n for n in (names[id(p)] for p in spared["params"]))
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_the_cosine_schedule_in_full():
    config = OptimConfig(lr=1.0, warmup_steps=2, floor_ratio=0.1)
    rates = [learning_rate(step, 6, config) for step in range(8)]
    # Warm-up 1/2, 1; then 0.1 + 0.9 (1 + cos(pi t)) / 2 at t = 1/4 .. 1; then the floor.
    assert rates == pytest.approx([0.5, 1.0, 0.8682, 0.55, 0.2318, 0.1, 0.1, 0.1], abs=1e-4)


def test_linear_constant_and_trapezoidal_schedules_and_the_warmup_fraction():
    linear = OptimConfig(lr=1.0, warmup_fraction=0.5, schedule="linear", floor_ratio=0.0)
    assert [learning_rate(s, 4, linear) for s in range(5)] == pytest.approx([0.5, 1.0, 0.5, 0.0, 0.0])
    constant = OptimConfig(lr=1.0, warmup_steps=1, schedule="constant")
    assert [learning_rate(s, 3, constant) for s in range(4)] == [1.0] * 4
    falls_last = OptimConfig(lr=1.0, warmup_steps=2, schedule="trapezoidal", decay_fraction=0.4, floor_ratio=0.0)
    rates = [learning_rate(s, 10, falls_last) for s in range(11)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0, 0])
    never = OptimConfig(lr=1.0, warmup_steps=0, schedule="trapezoidal", decay_fraction=0.0)
    assert [learning_rate(s, 3, never) for s in range(3)] == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="warmup_steps=10 leaves nothing of 10 steps"):
        learning_rate(0, 10, OptimConfig(warmup_steps=10))


@pytest.mark.parametrize(("limit", "scale"), [(1.0, 1 / 13), (6.5, 0.5), (13.5, 1.0), (0.0, 1.0)])
def test_gradients_are_clipped_to_a_joint_norm_and_left_alone_by_0(limit, scale):
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad, parameters[2].grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, -12.0])
    assert clip_gradients(iter(parameters), limit).item() == 13.0
    assert parameters[0].grad.tolist() == pytest.approx([3 * scale, 4 * scale])
    assert parameters[1].grad is None
    assert parameters[2].grad.tolist() == pytest.approx([0, -12 * scale])


def test_objective_weighting_gives_each_objective_its_share_and_token_weighting_each_token():
    counts = torch.tensor([30, 10, 0])
    shares = torch.tensor([0.5, 0.25, 0.25])
    assert objective_weights(counts, shares).tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert loss_scales(counts, shares).tolist() == pytest.approx([2 / 90, 1 / 30, 0])
    assert objective_weights(counts, shares, "token").tolist() == pytest.approx([0.75, 0.25, 0])
    assert loss_scales(counts, shares, "token").tolist() == pytest.approx([1 / 40, 1 / 40, 0])
    assert objective_weights(counts * 0, shares).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="loss_weighting='tokens' is unknown"):
        objective_weights(counts, shares, "tokens")  # type: ignore[arg-type]


def test_dropout_depends_on_seed_step_and_micro_batch_alone():
    def draw(*key: int) -> float:
        torch.rand(7)  # whatever ran before
        seed_dropout(*key)
        return torch.rand(()).item()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(1, 2, 3), draw(0, 2, 3), draw(1, 3, 3), draw(1, 2, 4), draw(1, 3, 2)}) == 5


def test_dropout_masks_do_not_depend_on_the_number_of_threads(batch, small):
    config = GLMConfig(**{**small.to_dict(), "dropout": 0.2, "attention_dropout": 0.2})
    torch.manual_seed(0)
    step = TrainStep(GLM(config), num_objectives=2, precision="fp32")
    threads, losses = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            seed_dropout(0, 0, 0)
            losses.append(step(batch)[0])
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=1e-4)


def test_precision_is_chosen_by_the_device_and_can_be_forced():
    assert resolve_precision("fp32", "cuda") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    assert resolve_precision("auto", "cuda") == "bf16"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    has_bf16 = "amx_bf16" in flags or "avx512_bf16" in flags
    assert resolve_precision("auto", "cpu") == ("bf16" if has_bf16 else "fp32")
    with pytest.raises(ValueError, match=r"precision='fp16' is unknown"):
        resolve_precision("fp16", "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": None}, "the batch has no targets: expected tokens, position_ids, .* loss_mask"),
        ({"segment_ids": None, "context_end": None}, "the batch has no segment_ids, context_end"),
        ({"loss_mask": lambda x: x[:, :-1]}, r"loss_mask has shape \[8, 39\] where tokens has \[8, 40\]"),
        ({"targets": lambda x: x.T}, r"targets has shape \[40, 8\] where tokens has \[8, 40\]"),
        ({"objective_ids": lambda x: x[:1]}, r"objective_ids has shape \[1, 40\]"),
        ({"loss_mask": lambda x: 0.5 * x}, "loss_mask: expected integers or bool, .* got torch.float32"),
        ({"targets": lambda x: x.int()}, r"targets: expected torch.int64, got torch.int32. Use .long\(\)"),
        ({"tokens": lambda x: x.tolist()}, "tokens: expected a torch tensor, got list"),
        ({"targets": lambda x: x.numpy()}, "targets: expected a torch tensor, got ndarray"),
    ],
)
def test_a_batch_of_wrong_form_is_named(step, batch, change, message):
    changed = {name: change[name] and change[name](value) if name in change else value for name, value in batch.items()}
    with pytest.raises(ValueError, match=message):
        step(changed)


def test_a_bool_loss_mask_is_as_good(step, batch):
    sums, counts = step(batch | {"loss_mask": batch["loss_mask"].bool()})
    assert torch.equal(sums, step(batch)[0])
    assert counts.sum() == batch["loss_mask"].sum()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"precision": "fp8"}, r"precision='fp8' is unknown \(have: auto, fp32, bf16\)"),
        ({"backend": "nope"}, r"unknown attention backend 'nope' \(have: dense, segments, varlen, flex\)"),
        ({"max_logits": -5}, "^max_logits=-5 must be at least 1"),
        ({"max_logits": 0}, "^max_logits=0 must be at least 1"),
        ({"num_objectives": 0}, "^num_objectives=0 must be at least 1"),
    ],
)
def test_wrong_settings_are_told_when_the_step_is_made(small, setting, message):
    with pytest.raises(ValueError, match=message):
        TrainStep(GLM(small), **setting)


def test_a_copied_step_trains_alike(step, batch):
    other = copy.deepcopy(step)
    torch.testing.assert_close(other(batch)[0], step(batch)[0], rtol=0, atol=0)


def dropout_gradients(small, batch, p: float = 0.2, **options) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Sums, gradients, and what torch's generator gives afterwards."""
    torch.manual_seed(0)
    model = GLM(GLMConfig(**{**small.to_dict(), "dropout": p, "attention_dropout": p}))
    seed_dropout(1, 2, 3)
    sums, _ = TrainStep(model, num_objectives=2, **options)(batch)
    sums.sum().backward()
    return sums.detach(), [parameter.grad for parameter in model.parameters()], torch.rand(3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointed_layers_give_the_same_gradients_bit_for_bit_dropout_included(batch, small, precision):
    kept = dropout_gradients(small, batch, precision=precision)
    again = dropout_gradients(small, batch, precision=precision, checkpoint_activations=True)
    assert torch.equal(kept[0], again[0])
    assert all(torch.equal(a, b) for a, b in zip(kept[1], again[1], strict=True))
    assert torch.equal(kept[2], again[2]), "the generator goes on from the same place"


def test_checkpointed_layers_keep_less_for_backward(step, batch):
    def saved_bytes(again: bool) -> int:
        held = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        step.execution = Execution(checkpoint_activations=again)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step(batch)
        weights = {p.untyped_storage().data_ptr() for p in step.parameters()}
        return sum(size for place, size in held.items() if place not in weights)

    assert saved_bytes(True) < 0.5 * saved_bytes(False)


@pytest.fixture
def traced(monkeypatch):
    """torch.compile with its tracing and guards, but running torch's own operations: no compiler, seconds less."""
    from glm_model import loss, model

    graphs = []

    def run_as_is(graph, _):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=run_as_is, fullgraph=True))
    for module in (loss, model):
        monkeypatch.setattr(module, "_compiled", functools.cache(module._compiled.__wrapped__))
    torch._dynamo.reset()
    return graphs


def test_compiled_layers_share_one_graph_and_give_the_same_gradients(small, packed, traced):
    batches = [packed([[12, 9], [10]], width=40, seed=0), packed([[9, 9, 8], [20]], width=40, seed=1)]
    for batch in batches:  # segments change with every batch, and nothing is traced again
        eager = dropout_gradients(small, batch, p=0.0, precision="fp32")
        compiled = dropout_gradients(small, batch, p=0.0, precision="fp32", compiled=True)
        torch.testing.assert_close(compiled[0], eager[0], rtol=1e-5, atol=1e-5)
        for mine, theirs in zip(compiled[1], eager[1], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert len(traced) == 5  # before and after attention, and that at blanks; the loss and its slope


def test_compiled_layers_under_checkpointing_and_dropout_draw_the_same_again(small, batch, traced):
    kept = dropout_gradients(small, batch, precision="fp32", compiled=True)
    again = dropout_gradients(small, batch, precision="fp32", compiled=True, checkpoint_activations=True)
    assert all(torch.equal(a, b) for a, b in zip(kept[1], again[1], strict=True))


@pytest.mark.slow
def test_code_compiled_for_this_machine_gives_the_same_gradients(small, batch):
    eager = dropout_gradients(small, batch, p=0.0, precision="fp32")
    compiled = dropout_gradients(small, batch, p=0.0, precision="fp32", compiled=True)
    for mine, theirs in zip(compiled[1], eager[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    kept = dropout_gradients(small, batch, precision="fp32", compiled=True)
    again = dropout_gradients(small, batch, precision="fp32", compiled=True, checkpoint_activations=True)
    assert torch.equal(kept[0], again[0])
    for mine, theirs in zip(kept[1], again[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_smoothing_and_z_loss_act_in_training_only(small, batch):
    torch.manual_seed(0)
    model = GLM(small)
    plain = TrainStep(model, num_objectives=2, precision="fp32")
    step = TrainStep(model, num_objectives=2, precision="fp32", options=LossOptions(0.1, 1e-3))
    assert (step(batch)[0] > plain(batch)[0]).all()
    assert torch.equal(step.eval()(batch)[0], plain.eval()(batch)[0])


@pytest.mark.parametrize(("name", "flops"), [("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA GeForce RTX 3060", None)])
def test_the_peak_rate_of_a_card_follows_from_a_part_of_its_name(monkeypatch, name, flops):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == flops
    assert peak_flops(torch.device("cpu")) is None
