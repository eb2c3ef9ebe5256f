"""Adapters that are made, saved and loaded apart from the encoder."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCTC, AutoTokenizer

from citrinet import CitrinetConfig, CitrinetForCTC
from tiny_models import TWO_BLOCKS, tiny_config, tiny_tokenizer

LABELS = {"GENDER": ["NONE", "GENDER_FEMALE"]}


@pytest.fixture
def base():
    torch.manual_seed(0)
    return CitrinetForCTC(tiny_config(adapters=[], tag_labels={}, **TWO_BLOCKS)).eval()


def features():
    return torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(0))


def adapted(base, name="zh"):
    """The base with an adapter and heads that are not neutral."""
    torch.manual_seed(1)
    base.new_adapter({"name": name, "dim": 4})
    base.new_heads(9, 8, LABELS)
    for block in base.model.blocks:
        nn.init.normal_(block.adapters[name].up.weight)
    return base


def test_a_new_adapter_changes_nothing_until_it_is_trained(base):
    before = base(features()).logits
    base.new_adapter({"name": "zh", "dim": 4})
    assert torch.equal(base(features()).logits, before)
    with pytest.raises(ValueError, match="already"):
        base.new_adapter({"name": "zh", "dim": 4})


def test_the_way_there_and_back_is_exact(base, tmp_path):
    before = base(features()).logits
    base.save_adapter(tmp_path, "base")
    adapted(base)
    base.save_adapter(tmp_path, "zh")
    with_adapter = base(features())
    base.load_adapter("base", tmp_path)
    assert torch.equal(base(features()).logits, before)
    assert base.config.vocab_size == 12 and base.config.tag_labels == {}
    base.load_adapter("zh", tmp_path)
    again = base(features())
    assert torch.equal(again.logits, with_adapter.logits)
    assert torch.equal(again.tag_logits["GENDER"], with_adapter.tag_logits["GENDER"])


def test_an_adapter_is_loaded_into_the_bare_base(base, tmp_path):
    base.save_pretrained(tmp_path)
    expected = adapted(base)(features()).logits
    base.save_adapter(tmp_path, "zh", tokenizer=tiny_tokenizer("bpe"))
    model = AutoModelForCTC.from_pretrained(tmp_path)
    model.load_adapter("zh")  # beside the model it was loaded from
    assert torch.equal(model.eval()(features()).logits, expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, subfolder="zh")
    assert tokenizer("今天")["input_ids"] == tiny_tokenizer("bpe")("今天")["input_ids"]
    model.save_pretrained(tmp_path / "merged")
    merged = CitrinetForCTC.from_pretrained(tmp_path / "merged")
    assert torch.equal(merged(features()).logits, expected)


def test_one_of_several_adapters_is_enabled(base, tmp_path):
    adapted(base, "zh")
    base.save_adapter(tmp_path, "zh")
    expected = base(features()).logits
    adapted(base, "en")
    base.load_adapter("zh", tmp_path)
    assert [(a["name"], a["enabled"]) for a in base.config.adapters] == [("zh", True), ("en", False)]
    assert torch.equal(base(features()).logits, expected)


def test_only_adapter_and_heads_are_trained(base):
    adapted(base)
    base.freeze_base()
    base.train()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    optimizer = torch.optim.SGD([w for w in base.parameters() if w.requires_grad], 0.1)
    base(features(), labels=torch.tensor([[1, 2], [3, 4]]), tag_labels={"GENDER": torch.tensor([0, 1])}).loss.backward()
    optimizer.step()
    changed = {name for name, tensor in base.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if ".adapters." in name or "head" in name}


def test_half_the_bytes_in_float16(base, tmp_path):
    adapted(base)
    for name, dtype in (("full", None), ("half", torch.float16)):
        base.save_adapter(tmp_path, name, dtype=dtype)
    base.load_adapter("half", tmp_path)
    assert base.ctc_head.weight.dtype == torch.float32


def test_what_does_not_fit_is_refused(base, tmp_path):
    adapted(base).save_adapter(tmp_path, "zh")
    other = CitrinetForCTC(tiny_config(adapters=[]))
    with pytest.raises(ValueError, match="belongs to an encoder"):
        other.load_adapter("zh", tmp_path)
    with pytest.raises(OSError, match=r"adapter\.en"):
        other.load_adapter("en", tmp_path)
    (tmp_path / "adapter.en.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="not an adapter"):
        other.load_adapter("en", tmp_path)


def test_an_adapter_of_the_flagship_is_a_tenth_of_the_model():
    config = CitrinetConfig(tag_labels={"AGE": list("abcde"), "DIALECT": list("abcd"), "GENDER": list("abc")})
    with torch.device("meta"):
        model = CitrinetForCTC(config)
        model.new_adapter({"name": "zh", "dim": 256})
    parameters = sum(tensor.numel() for _, tensor in model._adapter_weights("zh"))
    assert parameters == 12_105_728 + 5_126_025 + 12_300  # 69 MB of the 630
