"""Adapters that are made, saved and loaded apart from the encoder."""

import json
import os
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCTC, AutoTokenizer

from citrinet import CitrinetConfig, CitrinetForCTC
from hub_server import Hub
from tiny_models import TWO_BLOCKS, tiny_config, tiny_tokenizer

LABELS = {"GENDER": ["NONE", "GENDER_FEMALE"]}
BASES = {
    "plain": {"adapters": [], "tag_labels": {}},
    "adapted": {"adapters": [{"name": "first", "dim": 4}, {"name": "second", "dim": 4, "norm_position": "post"}]},
}


def make_base(**config):
    """A network with statistics and adapters that are not neutral."""
    torch.manual_seed(0)
    model = CitrinetForCTC(tiny_config(**{**BASES["plain"], **TWO_BLOCKS, **config})).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) if "running_var" in name else 0.1 * torch.randn_like(tensor))
    return model


@pytest.fixture
def base():
    return make_base()


def outputs(model):
    """Of both heads, for two utterances."""
    with torch.no_grad():
        output = model.eval()(torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(0)))
    return {"ctc": output.logits, **(output.tag_logits or {})}


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def adapted(base, name="zh", dim=4):
    """The base with an adapter and heads that are not neutral."""
    torch.manual_seed(sum(name.encode()))
    base.new_adapter({"name": name, "dim": dim})
    base.new_heads(9, 8, LABELS)
    for block in base.model.blocks:
        nn.init.normal_(block.adapters[name].up.weight)
    return base


def enabled(model):
    """Names of the adapters that apply, as the configuration has them and as every block does."""
    names = [adapter["name"] for adapter in model.config.adapters if adapter["enabled"]]
    for block in model.model.blocks:
        assert [name for name, module in block.adapters.items() if module.enabled] == names
    return names


# Making and training


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_a_new_adapter_changes_nothing_until_it_is_trained(base, norm_position):
    before = outputs(base)
    base.new_adapter({"name": "zh", "dim": 4, "norm_position": norm_position})
    assert enabled(base) == ["zh"]
    assert same(outputs(base), before)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"name": "zh", "dim": 4}, "already"),
        ({"name": "a/b", "dim": 4}, "cannot name an adapter"),
        ({"name": "values", "dim": 4}, "cannot name an adapter"),
        ({"name": "en", "dim": 4, "norm_position": "middle"}, "norm_position"),
        ({"name": "en", "dim": 4, "activation": "sillu"}, "no adapter can be made"),
        ({"name": "en"}, "no adapter can be made"),
    ],
)
def test_a_wrong_description_is_refused_and_changes_nothing(base, adapter, message):
    before = outputs(adapted(base))
    with pytest.raises(ValueError, match=message):
        base.new_adapter(adapter)
    assert enabled(base) == ["zh"]
    assert same(outputs(base), before)


def test_a_blank_outside_the_head_is_refused(base):
    with pytest.raises(ValueError, match="pad_token_id"):
        base.new_heads(9, 9, {})


@pytest.mark.parametrize("freeze_first", [True, False])
def test_only_adapter_and_heads_are_trained(base, freeze_first):
    adapted(base)
    if freeze_first:
        base.freeze_base()
    base.train()
    if not freeze_first:
        base.freeze_base()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    optimizer = torch.optim.SGD([w for w in base.parameters() if w.requires_grad], 0.1)
    batch = torch.randn(2, 32, 8)
    tags = {"GENDER": torch.tensor([0, 1])}
    base(batch, labels=torch.tensor([[1, 2], [3, 4]]), tag_labels=tags).loss.backward()
    optimizer.step()
    changed = {name for name, tensor in base.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if ".adapters." in name or "head" in name}


def test_adapters_are_switched_off_and_on(base):
    plain = base(torch.ones(1, 16, 8)).last_hidden_state
    adapted(base)
    with_adapter = outputs(base)
    base.enable_adapter(None)
    assert enabled(base) == []
    assert torch.equal(base(torch.ones(1, 16, 8)).last_hidden_state, plain)
    base.enable_adapter("zh")
    assert same(outputs(base), with_adapter)
    with pytest.raises(ValueError, match="no adapter 'en'"):
        base.enable_adapter("en")


# There and back


@pytest.mark.parametrize("kind", BASES)
def test_the_way_there_and_back_is_exact(tmp_path, kind):
    """Also for a base that has adapters and tag heads of its own, as the Mandarin model does."""
    base = make_base(**BASES[kind])
    before, names = outputs(base), enabled(base)
    base.save_adapter(tmp_path, "base")
    adapted(base).save_adapter(tmp_path, "zh")
    with_adapter = outputs(base)
    assert not same(with_adapter, before)
    base.load_adapter("base", tmp_path)
    assert same(outputs(base), before)
    assert enabled(base) == names
    assert (base.config.vocab_size, base.config.pad_token_id) == (12, 11)
    base.load_adapter("zh", tmp_path)
    assert same(outputs(base), with_adapter)
    assert (base.config.vocab_size, base.config.pad_token_id) == (9, 8)


def test_an_adapter_is_loaded_into_the_bare_base(base, tmp_path):
    base.save_pretrained(tmp_path)
    expected = outputs(adapted(base))
    base.save_adapter(tmp_path, "zh", tokenizer=tiny_tokenizer("bpe"))
    model = AutoModelForCTC.from_pretrained(tmp_path)
    model.load_adapter("zh")  # beside the model it was loaded from
    assert same(outputs(model), expected)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, subfolder="zh")
    assert tokenizer("今天")["input_ids"] == tiny_tokenizer("bpe")("今天")["input_ids"]
    model.save_pretrained(tmp_path / "merged")
    merged = CitrinetForCTC.from_pretrained(tmp_path / "merged")
    assert same(outputs(merged), expected)
    assert merged.config.pad_token_id == 8


def test_one_of_several_adapters_is_enabled(base, tmp_path):
    expected = {}
    for name in ("zh", "en"):
        adapted(base, name).save_adapter(tmp_path, name)
        expected[name] = outputs(base)
    assert not same(expected["zh"], expected["en"])
    for name in ("zh", "en", "zh"):
        base.load_adapter(name, tmp_path)
        assert enabled(base) == [name]
        assert same(outputs(base), expected[name])


def test_an_adapter_of_another_size_takes_the_place_of_its_namesake(base, tmp_path):
    adapted(base, dim=6).save_adapter(tmp_path, "zh")
    expected = outputs(base)
    other = adapted(make_base())
    other.load_adapter("zh", tmp_path)
    assert other.config.adapters[0]["dim"] == 6
    assert same(outputs(other), expected)


def test_adapters_that_were_stacked_are_stacked_again(tmp_path):
    """In their order, even where the model had them in another."""
    base = make_base(**BASES["adapted"])
    expected = outputs(base)
    base.save_adapter(tmp_path, "first")
    other = make_base(adapters=BASES["adapted"]["adapters"][::-1])
    first, second = (dict(model.model.state_dict()) for model in (other, base))
    other.model.load_state_dict({**first, **second})
    other.load_adapter("first", tmp_path)
    assert enabled(other) == ["first", "second"]
    assert same(outputs(other), expected)
    with pytest.raises(ValueError, match="no adapter 'second'"):
        make_base().load_adapter("first", tmp_path)


def test_a_name_that_is_not_enabled_is_not_saved(base, tmp_path):
    adapted(base, "zh")
    adapted(base, "en")
    for name in ("zh", "typo"):  # with the heads of `en` the first would be wrong, and the second a mistake
        with pytest.raises(ValueError, match=f"no adapter '{name}' is enabled"):
            base.save_adapter(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_number_formats(base, tmp_path):
    adapted(base)
    full = base.save_adapter(tmp_path, "zh")
    half = base.save_adapter(tmp_path / "half", "zh", dtype=torch.float16)
    with safe_open(full, "pt") as ours, safe_open(half, "pt") as theirs:
        assert all(torch.equal(ours.get_tensor(key).half(), theirs.get_tensor(key)) for key in ours.keys())  # noqa: SIM118
    base.load_adapter("zh", tmp_path / "half")
    assert {weight.dtype for weight in base.parameters()} == {torch.float32}
    model = base.to(torch.bfloat16)
    model.load_adapter("zh", tmp_path)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_an_interrupted_save_leaves_what_was_there(base, tmp_path):
    class Interrupted:
        def save_pretrained(self, folder):
            folder.mkdir()
            (folder / "tokenizer.json").write_text("half")
            raise KeyboardInterrupt

    file = adapted(base).save_adapter(tmp_path, "zh")
    before = file.read_bytes()
    nn.init.zeros_(base.ctc_head.weight)
    with pytest.raises(KeyboardInterrupt):
        base.save_adapter(tmp_path, "zh", tokenizer=Interrupted())
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


# What does not fit


def rewrite(file, facts=None, **weights):
    """Change facts and weights of an adapter file; a weight that is None is left out."""
    with safe_open(file, "pt") as stored:
        metadata = stored.metadata()
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    changed = {**json.loads(metadata["citrinet_adapter"]), **(facts or {})}
    tensors = {key: tensor for key, tensor in {**tensors, **weights}.items() if tensor is not None}
    save_file(tensors, file, {**metadata, "citrinet_adapter": json.dumps(changed)})


@pytest.mark.parametrize(
    ("facts", "weights", "message"),
    [
        ({"hidden_sizes": [32, 32]}, {}, r"an encoder of \[32, 32\] channels"),
        ({"vocab_size": 10}, {}, r"ctc_head.weight is \[9, 16\], and \[10, 16\] is needed"),
        ({"vocab_size": -1}, {}, "pad_token_id"),
        ({"vocab_size": "many"}, {}, "does not fit"),
        ({"tag_labels": {}}, {}, "also holds tag_heads.GENDER.bias"),
        ({"tag_labels": {"../x": ["a"]}}, {}, "cannot name"),
        ({"adapter": {"name": "zh"}}, {}, "not an adapter"),
        ({"adapter": None, "enabled": []}, {}, "also holds model.blocks.0.adapters.zh"),
        ({"surprise": 1}, {}, "not an adapter"),
        ({}, {"ctc_head.bias": None}, "lacks ctc_head.bias"),
        ({}, {"model.blocks.0.pointwise": torch.ones(1)}, "also holds model.blocks.0.pointwise"),
        ({}, {"model.blocks.1.adapters.zh.down.weight": torch.ones(4, 8)}, r"is \[4, 8\], and \[4, 16\] is needed"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(base, tmp_path, facts, weights, message):
    rewrite(adapted(base).save_adapter(tmp_path, "zh"), facts, **weights)
    other = adapted(make_base(), "en")
    before, config = outputs(other), other.config.to_dict()
    with pytest.raises(ValueError, match=message):
        other.load_adapter("zh", tmp_path)
    assert same(outputs(other), before)
    assert other.config.to_dict() == config
    assert enabled(other) == ["en"]


def test_no_adapter_file(base, tmp_path):
    with pytest.raises(OSError, match=r"adapter\.en"):
        base.load_adapter("en", tmp_path)
    for name, content in (("en", b"not safetensors"), ("fr", b"")):
        (tmp_path / f"adapter.{name}.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="not an adapter"):
            base.load_adapter(name, tmp_path)
    save_file({"weight": torch.ones(1)}, tmp_path / "adapter.de.safetensors")
    with pytest.raises(ValueError, match="not an adapter"):
        base.load_adapter("de", tmp_path)


# With others


def test_a_lora_still_goes_to_peft(base, tmp_path):
    base.save_pretrained(tmp_path / "base")
    lora = get_peft_model(
        AutoModelForCTC.from_pretrained(tmp_path / "base"), LoraConfig(target_modules=r".*\.pointwise")
    )
    for name, weight in lora.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight)
    lora.save_pretrained(tmp_path / "lora")
    expected = outputs(lora)
    assert (expected["ctc"] - outputs(base)["ctc"]).abs().max() > 0.01
    loaded = outputs(AutoModelForCTC.from_pretrained(tmp_path / "lora"))
    torch.testing.assert_close(loaded, expected)
    base.load_adapter(str(tmp_path / "lora"))
    torch.testing.assert_close(outputs(base), expected)


_FROM_HUB = """
import sys, torch, citrinet
from transformers import AutoModelForCTC
model = AutoModelForCTC.from_pretrained("someone/citrinet")
model.load_adapter("zh")
there = model.eval()(torch.ones(1, 16, 8)).logits
model.load_adapter("base", "someone/citrinet", revision="main", token=False)
back = model.eval()(torch.ones(1, 16, 8)).logits
torch.save({"there": there, "back": back}, sys.argv[1])
"""


@pytest.mark.slow
def test_from_the_hub(base, tmp_path):
    base.save_pretrained(tmp_path / "model")
    base.save_adapter(tmp_path / "model", "base")
    expected = {"back": base(torch.ones(1, 16, 8)).logits}
    adapted(base).save_adapter(tmp_path / "model", "zh")
    expected["there"] = base(torch.ones(1, 16, 8)).logits
    with Hub({"someone/citrinet": tmp_path / "model"}) as hub:
        ours = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
        command = [sys.executable, "-c", _FROM_HUB, str(tmp_path / "result")]
        run = subprocess.run(command, env={**kept, **ours}, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    result = torch.load(tmp_path / "result")
    for name, logits in expected.items():
        torch.testing.assert_close(result[name], logits)


def test_an_adapter_of_the_flagship_is_a_tenth_of_the_model():
    config = CitrinetConfig(tag_labels={"AGE": list("abcde"), "DIALECT": list("abcd"), "GENDER": list("abc")})
    with torch.device("meta"):
        model = CitrinetForCTC(config)
        model.new_adapter({"name": "zh", "dim": 256})
    parameters = sum(tensor.numel() for _, tensor in model._adapter_weights("zh"))
    assert parameters == 12_105_728 + 5_126_025 + 12_300  # 69 MB of the 630
