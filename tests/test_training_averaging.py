"""The moving average of weights, against PyTorch's."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from citrinet import CitrinetForCTC
from citrinet.training.averaging import WeightAverage
from tiny_models import TWO_BLOCKS, tiny_config


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CitrinetForCTC(tiny_config(**TWO_BLOCKS))


def step(model, seed):
    """Other weights and other statistics, as a step of the optimiser leaves them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.add_(1)


def copies(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_it_is_pytorchs_with_a_decay_that_grows(model):
    """`AveragedModel` copies the first weights that it is given; then both move alike, each with the decay of its step."""
    average, theirs = WeightAverage(model, 0.6), AveragedModel(model, use_buffers=True)
    theirs.update_parameters(model)
    for number in range(1, 21):
        step(model, number)
        average.update()
        theirs.multi_avg_fn = get_ema_multi_avg_fn(min(0.6, number / (number + 9)))
        theirs.update_parameters(model)
    expected = theirs.module.state_dict()
    with average.applied():
        ours = copies(model)
    for name in expected:
        if expected[name].is_floating_point():
            assert torch.equal(ours[name], expected[name]), name
    assert any("running_var" in name for name in expected)


def test_the_first_updates_forget_the_weights_that_were_there():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = WeightAverage(layer, 0.999)
    nn.init.ones_(layer.weight)
    expected = 0.0
    for number in range(1, 101):
        average.update()
        expected += (1 - expected) * (1 - number / (number + 9))
    with average.applied():
        assert layer.weight.item() == pytest.approx(expected, rel=1e-5) and expected > 0.999


def test_the_models_own_weights_come_back_even_after_an_error(model):
    average = WeightAverage(model, 0.9)
    step(model, 1)
    average.update()
    before = copies(model)
    with pytest.raises(RuntimeError), average.applied():
        with average.applied():  # within itself it changes nothing
            assert not torch.equal(model.ctc_head.weight, before["ctc_head.weight"])
        assert not torch.equal(model.ctc_head.weight, before["ctc_head.weight"])
        assert all(
            torch.equal(t, before[n]) for n, t in model.state_dict().items() if n.endswith("num_batches_tracked")
        )
        raise RuntimeError
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_frozen_weights_stay_what_they_are_to_the_last_bit():
    layer = nn.Linear(100, 100)
    average = WeightAverage(layer, 0.999)
    before = copies(layer)
    for _ in range(50):
        average.update()
    with average.applied():
        assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_it_goes_on_from_its_state(model):
    whole, first = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    for number in range(4):
        step(model, number)
        whole.update()
        if number < 2:
            first.update()
        if number == 1:
            state = {
                "updates": first.updates,
                "average": {n: t.clone() for n, t in first.state_dict()["average"].items()},
            }
            second = WeightAverage(model, 0.9)
            second.load_state_dict(state)
        if number >= 2:
            second.update()
    ours, theirs = whole.state_dict(), second.state_dict()
    assert ours["updates"] == theirs["updates"] == 4
    assert all(torch.equal(tensor, theirs["average"][name]) for name, tensor in ours["average"].items())


def test_what_is_no_average_is_refused(model):
    for decay in (1.0, -0.1):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            WeightAverage(model, decay)
    with pytest.raises(ValueError, match="of another network"):
        WeightAverage(model, 0.9).load_state_dict(WeightAverage(nn.Linear(1, 1), 0.9).state_dict())
