"""The trial of a backend finds what fails, and what is not a number."""

import pytest
import torch

from glm_model.attention import trial


def test_a_backend_that_fails_is_reported_with_its_error():
    reason = trial.failure_on("varlen", torch.device("cpu"), torch.bfloat16, 64, False)
    assert reason is not None
    assert reason.startswith("fails on cpu (NotImplementedError: Could not run 'aten::_flash_attention_forward'")
    assert trial.failure_on("segments", torch.device("cpu"), torch.float32, 64, True) is None


@pytest.mark.parametrize("backend", ["dense", "segments"])
def test_a_trial_with_dropout_looks_at_outputs_and_gradients(backend, monkeypatch):
    assert trial.runs_with_dropout(backend, "cpu", torch.float32, 16)

    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.nan

    plain = trial.attention
    monkeypatch.setattr(trial, "attention", lambda q, k, v, mask, **how: plain(q, k, Spoilt.apply(v), mask))
    assert not trial.runs_with_dropout(backend, "cpu", torch.float32, 16)
