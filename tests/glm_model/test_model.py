"""The model: sizes, initialisation, input checks, laws 3 (no leak) and 4 (packing is invisible), the cache."""

import dataclasses

import pytest
import torch

from glm_model.cache import Cache
from glm_model.config import (
    SIZES,
    GLMConfig,
    OptimConfig,
    attention_density,
    flops_per_token,
    num_parameters,
    sized,
)
from glm_model.model import GLM, Execution


def inputs(batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
    return [batch[name] for name in names]


@pytest.fixture
def model(small) -> GLM:
    torch.manual_seed(0)
    model = GLM(small).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # so that attention is far from uniform
    return model


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base", 109_338_624),
        ("large", 334_688_256),
        ("410m", 410_265_600),
        ("515m", 514_632_960),
        ("2b", 1_920_122_880),
        ("10b", 9_880_682_496),
    ],
)
def test_parameter_counts_of_the_published_sizes(name, expected):
    with torch.device("meta"):
        assert GLM(sized(name)).num_parameters() == expected == num_parameters(sized(name))


def test_parameter_formula_without_block_positions(small):
    config = GLMConfig(**{**small.to_dict(), "block_positions": False})
    assert GLM(config).num_parameters() == num_parameters(config)


def test_useful_flops_of_base_and_large_match_the_plan_of_record():
    assert round(flops_per_token(sized("base")) / 1e6) == pytest.approx(585, abs=1)
    assert round(flops_per_token(sized("large")) / 1e6) == pytest.approx(1978, abs=2)


def test_attention_density_counts_visible_pairs():
    assert attention_density(3, 5) == (3 * 5 + 1 + 2) / 25


def test_unknown_size_names_the_nearest_and_lists_all():
    with pytest.raises(ValueError, match="did you mean 'base'") as error:
        sized("bse")
    assert all(name in str(error.value) for name in SIZES)


def test_config_round_trips_and_refuses_what_it_does_not_know(small):
    assert GLMConfig.from_dict(small.to_dict()) == small
    with pytest.raises(ValueError, match=r"no key 'layer'; did you mean 'layers'"):
        GLMConfig.from_dict({**small.to_dict(), "layer": 2})
    with pytest.raises(ValueError, match="lacks layers, heads"):
        GLMConfig.from_dict({"width": 8, "vocab_size": 8})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "does not split evenly"),
        ({"layers": 0}, "at least 1"),
        ({"dropout": 1.0}, "below 1"),
        ({"dropout": 0.99999}, r"model\.dropout=0\.99999 must be at least 0 and below 1 \(at most 0\.9999\)"),
        ({"attention_dropout": 0.99999}, r"model\.attention_dropout=0\.99999 must be .* below 1 \(at most 0\.9999\)"),
        ({"width": 32.0}, r"model\.width: expected int, got 32\.0"),
    ],
)
def test_impossible_shapes_are_refused(change, message, small):
    with pytest.raises(ValueError, match=message):
        GLMConfig(**{**small.to_dict(), **change})


def test_the_largest_dropout_leaves_something(small):
    torch.manual_seed(0)
    config = GLMConfig(**{**small.to_dict(), "dropout": 0.9999, "attention_dropout": 0.9999})
    zeros = torch.zeros(8, 40, dtype=torch.int64)
    assert GLM(config)(zeros, zeros, zeros).isfinite().all()


def test_optimizer_settings_are_checked():
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        OptimConfig(schedule="cosin")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"optim.name='moun' is unknown; did you mean 'muon'\? \(have: adamw, muon\)"):
        OptimConfig(name="moun")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"optim\.lr"):
        OptimConfig(lr=0)


def test_initialisation_scales_output_projections_with_depth():
    torch.manual_seed(0)
    model = GLM(sized("tiny", vocab_size=1024))
    layer = model.layers[1]
    assert layer.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.position_embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.mlp_out.weight.std().item() == pytest.approx(0.02 / 4**0.5, rel=0.05)
    assert layer.attention_out.weight.std().item() == pytest.approx(0.02 / 4**0.5, rel=0.05)
    assert layer.qkv.bias.abs().max() == 0
    assert (layer.mlp_norm.weight == 1).all()


def test_tables_have_one_row_more_than_positions(model):
    assert len(model.position_embedding.weight) == len(model.block_position_embedding.weight) == 49


@pytest.mark.usefixtures("each_backend")
def test_law_3_a_target_moves_no_logit_up_to_its_own_place_and_no_other_segment(model, packed):
    batch = packed([[12, 10, 9]], width=48)
    before = model(*inputs(batch))[0]
    fed = (batch["block_position_ids"][0] > 1).nonzero()[:, 0]  # places where a blank's token is an input
    segments = batch["segment_ids"][0]
    assert len(fed) == 9
    for place in fed.tolist():
        changed = {**batch, "tokens": batch["tokens"].clone()}
        changed["tokens"][0, place] += 1
        moved = ((model(*inputs(changed))[0] - before).abs().amax(-1) > 0).nonzero()[:, 0]
        later_in_segment = (segments == segments[place]) & (torch.arange(48) >= place)
        assert set(moved.tolist()) == set(later_in_segment.nonzero()[:, 0].tolist())


@pytest.mark.usefixtures("each_backend")
def test_law_3_a_context_token_moves_its_whole_segment_and_nothing_else(model, packed):
    batch = packed([[12, 10]], width=32)
    before = model(*inputs(batch))[0]
    changed = {**batch, "tokens": batch["tokens"].clone()}
    changed["tokens"][0, 1] += 1
    moved = (model(*inputs(changed))[0] - before).abs().amax(-1) > 0
    assert torch.equal(moved, batch["segment_ids"][0] == 0)


@pytest.mark.usefixtures("each_backend")
def test_law_4_packing_is_invisible(model, packed):
    together = packed([[12, 10], [9, 14, 8]], width=48)
    logits = model(*inputs(together))
    for row in range(2):
        for segment in range(int(together["segment_ids"][row].max()) + 1):
            at = (together["segment_ids"][row] == segment).nonzero()[:, 0]
            alone = {name: value[row : row + 1, at].clone() for name, value in together.items()}
            alone["context_end"] -= at[0]
            alone["segment_ids"][:] = 0
            torch.testing.assert_close(model(*inputs(alone))[0], logits[row, at], rtol=0, atol=1e-5)


@pytest.mark.parametrize("vocab_size", [128, 127])
@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (4,), (1, 2), (3, 5)])
def test_logits_of_few_positions_are_those_of_many(shape, vocab_size, small):
    torch.manual_seed(0)
    model = GLM(dataclasses.replace(small, vocab_size=vocab_size))
    x_D = torch.randn(*shape, small.width, requires_grad=True)
    logits_V, expected_V = model.logits(x_D), x_D @ model.token_embedding.weight.T
    torch.testing.assert_close(logits_V, expected_V)
    weights_V = torch.randn_like(logits_V)
    inputs = (x_D, model.token_embedding.weight)
    gradients = [torch.autograd.grad((logits * weights_V).sum(), inputs) for logits in (logits_V, expected_V)]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_many_positions_in_pieces_are_those_at_once(model):
    tokens = torch.randint(0, 60, (90, 12), generator=torch.Generator().manual_seed(0))
    at_once = model(tokens, tokens * 0, tokens * 0)
    with torch.no_grad():
        in_pieces = model(tokens, tokens * 0, tokens * 0)
    torch.testing.assert_close(in_pieces, at_once, rtol=0, atol=1e-4)
    assert not torch.equal(in_pieces[:1], in_pieces[-1:])


@pytest.mark.usefixtures("each_backend")
def test_without_segments_and_context_a_row_is_one_bidirectional_segment(model):
    tokens, zeros = torch.arange(3, 13)[None], torch.zeros(1, 10, dtype=torch.int64)
    positions = torch.arange(10)[None]
    explicit = model(tokens, positions, zeros, zeros, zeros + 10)
    torch.testing.assert_close(model(tokens, positions, zeros), explicit, rtol=0, atol=1e-6)
    tokens[0, -1] += 1
    assert (model(tokens, positions, zeros)[0, 0] != explicit[0, 0]).any()


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("chunks", [[1] * 5, [5], [2, 2, 1]])
def test_law_5_appending_to_a_cache_equals_one_pass(model, chunks, packed):
    batch = packed([[10]], width=14)
    whole = model(*inputs(batch))
    cache = Cache(model.config, 1, 14)
    context = int(batch["context_end"][0, 0])
    parts, at = [], 0
    for size in (context, *chunks):
        columns = slice(at, at + size)
        parts.append(model.logits(model.hidden(*(x[:, columns] for x in inputs(batch)[:3]), cache=cache)))
        at += size
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_a_full_cache_says_so(model):
    zeros = torch.zeros(1, 4, dtype=torch.int64)
    cache = Cache(model.config, 1, 6)
    model.hidden(zeros, zeros, zeros, cache=cache)
    with pytest.raises(ValueError, match="room for 2 more positions of 6"):
        model.hidden(zeros, zeros, zeros, cache=cache)
    with pytest.raises(ValueError, match="leave out segment_ids"):
        model.hidden(zeros[:, :1], zeros[:, :1], zeros[:, :1], zeros[:, :1], cache=cache)


@pytest.mark.parametrize("backend", ["segments", "varlen", "nope"])
def test_with_a_cache_no_other_backend_is_taken(model, backend):
    zeros = torch.zeros(1, 4, dtype=torch.int64)
    cache = Cache(model.config, 1, 6)
    with pytest.raises(ValueError, match=f"with a cache attention runs by 'dense', not '{backend}': leave backend out"):
        model.hidden(zeros, zeros, zeros, cache=cache, execution=Execution(backend))
    assert cache.lengths.tolist() == [0]
    named = model.hidden(zeros, zeros, zeros, cache=cache, execution=Execution("dense"))
    assert cache.lengths.tolist() == [4]
    assert torch.equal(named, model.hidden(zeros, zeros, zeros, cache=Cache(model.config, 1, 6)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tokens", 64, "tokens holds 64: expected 0 to 63. Use the tokenizer"),
        ("tokens", -1, "tokens holds -1"),
        ("position_ids", 49, "position_ids holds 49: expected 0 to 48. Shorten"),
        ("block_position_ids", 49, "block_position_ids holds 49"),
        ("context_end", 20, "context_end=20 lies outside its segment, which spans 0 to 14 of row 0"),
    ],
)
def test_values_out_of_range_are_named_with_limit_and_remedy(model, field, value, message, packed):
    batch = packed([[10]], width=16)
    where = batch["segment_ids"] == 0
    batch[field] = torch.where(where, torch.where(where, value, 0), batch[field])
    with pytest.raises(ValueError, match=message):
        model(*inputs(batch))


def test_wrong_shapes_and_dtypes_are_named(model):
    zeros = torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"position_ids has shape \[2, 3\] where tokens has \[2, 4\]"):
        model(zeros, zeros[:, :3], zeros)
    with pytest.raises(ValueError, match=r"tokens: expected torch.int64, got torch.int32. Use .long"):
        model(zeros.int(), zeros, zeros)
    with pytest.raises(ValueError, match=r"tokens has shape \[4\]"):
        model(zeros[0], zeros[0], zeros[0])


@pytest.mark.parametrize(
    "absent", [["tokens"], ["position_ids"], ["block_position_ids"], ["tokens", "block_position_ids"]], ids=" ".join
)
def test_absent_fields_are_named(model, absent):
    names = ("tokens", "position_ids", "block_position_ids")
    given = {name: None if name in absent else torch.ones(2, 4, dtype=torch.int64) for name in names}
    told = f"^{', '.join(absent)} is None: expected {', '.join(names)}, each "
    for act in (model, model.hidden):
        with pytest.raises(ValueError, match=told):
            act(**given)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (torch.tensor([0, 8]), r"at holds 8: expected 0 to 7. Positions are flat: row \* length \+ column"),
        (torch.tensor([-1]), "at holds -1: expected 0 to 7"),
        (torch.tensor([[0, 1]]), r"at has shape \[1, 2\] where a list of flat positions has \[2\]"),
        (torch.tensor([0.0]), "at: expected torch.int64, got torch.float32"),
        ([0, 1], "at: expected a torch tensor, got list. Use torch.as_tensor"),
    ],
)
def test_positions_that_are_none_are_named(model, at, message):
    ids = torch.ones(2, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        model.hidden(ids, ids, ids, at=at)


def test_ids_that_are_no_tensors_are_named(model):
    ids = torch.ones(2, 4, dtype=torch.int64)
    for bad, kind in ((ids.tolist(), "list"), (ids.numpy(), "ndarray")):
        with pytest.raises(ValueError, match=f"tokens: expected a torch tensor, got {kind}"):
            model(bad, ids, ids)
        with pytest.raises(ValueError, match=f"segment_ids: expected a torch tensor, got {kind}"):
            model(ids, ids, ids, bad)


def test_dropout_acts_in_training_only_and_follows_the_seed(small, packed):
    model = GLM(GLMConfig(**{**small.to_dict(), "dropout": 0.3, "attention_dropout": 0.3}))
    batch = inputs(packed([[12, 10]], width=32))

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(*batch)

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    model.eval()
    assert torch.equal(run(1), run(2))
