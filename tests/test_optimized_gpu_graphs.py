"""What stands around CUDA's graphs, with a stand-in for them where there is no GPU; and the graphs where there is one."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_optimized import difference, tiny_model

from citrinet.optimized import folding, graphs
from citrinet.optimized.graphs import GraphedBlocks, padded_length

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"


@pytest.fixture
def captured(monkeypatch):
    """Shapes that were captured; without a GPU, a graph is a call of the blocks on the memory that it reads and writes."""
    shapes, really = [], graphs.capture

    def capture(blocks, features, mask, place):
        shapes.append(tuple(features.shape))
        if CUDA:
            return really(blocks, features, mask, place)
        output = [tensor.clone() for tensor in graphs.run_in_turn(blocks, features, mask)]

        def replay():
            for held, value in zip(output, graphs.run_in_turn(blocks, features, mask), strict=True):
                held.copy_(value)

        return graphs.Graph(features, mask, tuple(output), replay)

    monkeypatch.setattr(graphs, "capture", capture)
    monkeypatch.setattr(graphs, "RUNS_BEFORE_CAPTURE", 0)
    if not CUDA:
        monkeypatch.setattr(GraphedBlocks, "_suits", staticmethod(lambda blocks, features: True))
        monkeypatch.setattr(graphs, "_new_place", object)
    return shapes


@pytest.fixture
def network():
    return folding.optimize(tiny_model(), "float32", torch.device("cuda")).to(DEVICE)


@pytest.fixture
def plain(network):
    """The same, block by block."""
    twin = copy.deepcopy(network)
    twin.model.run_blocks = graphs.run_in_turn
    return twin


def batch(rows, frames, valid=None):
    """Features, and a mask by which the first utterance has so many valid frames."""
    torch.manual_seed(frames)
    inputs = {"input_features": torch.randn(rows, frames, 8, device=DEVICE)}
    if valid is not None:
        inputs["attention_mask"] = torch.ones(rows, frames, device=DEVICE)
        inputs["attention_mask"][0, valid:] = 0
    return inputs


def test_lengths_are_few_and_hold_little_padding():
    lengths = {padded_length(frames) for frames in range(1, GraphedBlocks.max_frames + 1)}
    assert len(lengths) == 40
    assert all(frames <= padded_length(frames) < max(frames + 128, 9 / 8 * frames) for frames in range(1, 9000))


@torch.no_grad()
def test_a_shape_that_comes_once_is_not_captured(captured, network, monkeypatch):
    monkeypatch.setattr(graphs, "RUNS_BEFORE_CAPTURE", 1)
    once, twice = batch(1, 100), batch(2, 100)
    first, *others = [network(**case).logits for case in (twice, once, twice, twice)]
    assert captured == [(2, 128, 8)]
    assert torch.equal(others[1], others[2]) and difference(first.cpu(), others[1].cpu()) < 1e-5


@torch.inference_mode()
def test_results_are_those_without(captured, network, plain):
    cases = [batch(2, 100), batch(2, 41, 30), batch(2, 128, 1), batch(2, 150, 149), batch(1, 90)]
    expected, found = ([model(**case) for case in cases] for model in (plain, network))
    assert captured == [(2, 128, 8), (2, 256, 8), (1, 128, 8)]
    for one, other in zip(found, expected, strict=True):  # all at the end: no result lies where the next is written
        assert one.logits.shape == other.logits.shape
        valid = torch.ones(one.logits.shape[:2], dtype=torch.bool)
        if other.attention_mask is not None:
            assert torch.equal(one.attention_mask, other.attention_mask)
            valid = other.attention_mask.cpu()
        assert difference(one.logits.cpu()[valid], other.logits.cpu()[valid]) < 1e-5
        for category, logits in other.tag_logits.items():
            assert torch.allclose(one.tag_logits[category], logits, atol=1e-5)


def test_inference_mode_may_come_and_go(captured, network):
    with torch.inference_mode():
        first = network(**batch(1, 100)).logits
    second = network(**batch(1, 100)).logits
    with torch.inference_mode():
        third = network(**batch(1, 100)).logits
    assert len(captured) == 1
    assert torch.equal(first, second) and torch.equal(second, third)


@torch.no_grad()
def test_another_adapter_is_another_graph(captured, network, plain):
    case = batch(1, 100)
    for name in ("first", "second", "first", None):
        network.enable_adapter(name)
        plain.enable_adapter(name)
        assert difference(network(**case).logits.cpu(), plain(**case).logits.cpu()) < 1e-5
    assert len(captured) == 3


@torch.no_grad()
def test_graphs_are_forgotten_where_they_would_be_wrong(captured, network):
    case = batch(1, 100)
    network(**case)
    network.to(torch.float64).to(torch.float32)
    network(**case)
    copy.deepcopy(network)(**case)
    assert len(captured) == 3
    network.model.to(DEVICE)
    network(**case)
    assert len(captured) == 4


@torch.no_grad()
def test_only_so_many_are_kept(captured, network, monkeypatch):
    monkeypatch.setattr(graphs, "MAX_GRAPHS", 2)
    for rows in (1, 2, 1, 3, 1, 2):
        network(**batch(rows, 100))
        assert len(network.model.run_blocks._graphs) <= 2
    assert [shape[0] for shape in captured] == [1, 2, 3, 2]


@torch.no_grad()
def test_large_batches_and_hidden_states_go_block_by_block(captured, network, monkeypatch):
    assert len(network(**batch(1, 100), output_hidden_states=True).hidden_states) == 5
    monkeypatch.setattr(GraphedBlocks, "max_frames", 512)
    network(**batch(5, 100))
    assert captured == []
    network(**batch(4, 100))
    assert captured == [(4, 128, 8)]


@torch.no_grad()
def test_threads_share_the_graphs(captured, network, plain):
    cases = [batch(1, frames, frames - 3) for frames in range(60, 100)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda case: network(**case).logits, cases))
    for one, case in zip(found, cases, strict=True):
        assert torch.allclose(one, plain(**case).logits, atol=1e-4)
    assert len(captured) == 1


@torch.no_grad()
def test_what_cannot_be_captured_goes_block_by_block(captured, network, plain, monkeypatch):
    messages = []

    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    graphs.logger.warning_once.cache_clear()
    monkeypatch.setattr(graphs.logger, "warning", lambda message, *_, **__: messages.append(message))
    monkeypatch.setattr(graphs, "capture", fail)
    for _ in range(2):
        case = batch(1, 100, 90)
        assert torch.equal(network(**case).logits, plain(**case).logits)
    assert len(messages) == 1 and "(operation not permitted when stream is capturing)" in messages[0]


@pytest.mark.skipif(not CUDA, reason="there is no CUDA device")
@torch.no_grad()
def test_calls_that_are_not_replayed_on_a_gpu(captured, network):
    case = batch(1, 100)
    with torch.autocast("cuda", torch.bfloat16):
        network(**case)
    with torch.cuda.stream(torch.cuda.Stream()):
        network(**case)
    torch.cuda.synchronize()
    hook = network.model.blocks[0].register_forward_hook(lambda *_: None)
    network(**case)
    hook.remove()
    assert captured == []


def test_nothing_is_captured_on_a_cpu(monkeypatch):
    monkeypatch.setattr(graphs, "capture", lambda *_: pytest.fail("captured"))
    network = folding.optimize(tiny_model(), "float32", torch.device("cuda"))
    network(input_features=torch.randn(1, 100, 8))
