"""
Adapters that come and go: one encoder serves several languages or domains, each with an adapter, heads and a tokenizer.

File names follow Transformers' MMS (`Wav2Vec2ForCTC.load_adapter`): `adapter.<name>.safetensors` beside the model.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.utils import cached_file

_FACTS = "citrinet_adapter"
_HEADS = ("ctc_head.", "tag_heads.")


class CitrinetAdapterMixin:
    """What [`CitrinetForCTC`] can do with adapters. `load_adapter` is MMS's, not PEFT's, as in Wav2Vec2."""

    config: Any
    model: Any
    ctc_head: nn.Linear
    tag_heads: nn.ModuleDict
    state_dict: Any
    requires_grad_: Any
    _init_weights: Any

    def new_adapter(self, adapter: dict) -> None:
        """
        Add an adapter to every block, enable it and disable the others. It changes nothing until it is trained.

        Args:
            adapter: `{"name", "dim", ...}` as in [`CitrinetConfig`].

        Raises:
            ValueError: if the model has an adapter of that name, or the description is wrong.
        """
        name = adapter["name"]
        others = [{**other, "enabled": False} for other in self.config.adapters if other["name"] != name]
        if len(others) < len(self.config.adapters):
            raise ValueError(f"the model has an adapter {name!r} already: choose another name.")
        config = type(self.config)(**{**self.config.to_dict(), "adapters": [*others, {**adapter, "enabled": True}]})
        self.config.adapters = config.adapters
        for block in self.model.blocks:
            block.add_adapter_module(config.adapters[-1])
        self.enable_adapter(name)

    def enable_adapter(self, name: str | None) -> None:
        """
        Enable one adapter and disable the others; none disables all.

        Heads stay as they are: they belong to an adapter as its tokenizer does, see `load_adapter`.
        """
        self.config.adapters = [{**adapter, "enabled": adapter["name"] == name} for adapter in self.config.adapters]
        for block in self.model.blocks:
            for other, module in block.adapters.items():
                module.enabled = other == name

    def freeze_base(self) -> None:
        """Leave only the enabled adapters, the CTC head and the tag heads to be trained."""
        self.requires_grad_(False)
        for module in (self.ctc_head, self.tag_heads, *self._enabled_adapters()):
            module.requires_grad_(True)

    def new_heads(self, vocab_size: int, pad_token_id: int, tag_labels: dict[str, list[str]]) -> None:
        """Put new, untrained heads in the place of the model's."""
        self.config.update({"vocab_size": vocab_size, "pad_token_id": pad_token_id, "tag_labels": tag_labels})
        place = self.ctc_head.weight
        self.ctc_head = nn.Linear(self.config.hidden_size, vocab_size)
        self.tag_heads = nn.ModuleDict(
            {category: nn.Linear(self.config.hidden_size, len(labels)) for category, labels in tag_labels.items()}
        )
        for head in (self.ctc_head, *self.tag_heads.values()):
            self._init_weights(head)
            head.to(place.device, place.dtype)

    def save_adapter(self, save_directory, name: str, tokenizer=None, dtype: torch.dtype | None = None) -> None:
        """
        Save an adapter with the heads, and the tokenizer that goes with them.

        Writes `adapter.<name>.safetensors`, and the tokenizer into the folder `<name>`. If the model has no adapter of
        that name only the heads are saved: under a name such as `base`, that is the way back to the bare encoder.
        Batch normalisation is the encoder's, which an adapter leaves as it is.

        Args:
            save_directory (`str` or `os.PathLike`): the folder, as a rule that of the base model.
            name: the adapter's name.
            tokenizer: the tokenizer of the CTC head.
            dtype: type to store the weights in; theirs if not given.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "adapter": next((adapter for adapter in self.config.adapters if adapter["name"] == name), None),
            "hidden_sizes": self.config.hidden_sizes,
            "vocab_size": self.config.vocab_size,
            "pad_token_id": self.config.pad_token_id,
            "tag_labels": self.config.tag_labels,
        }
        weights = {key: tensor.to(dtype or tensor.dtype).contiguous() for key, tensor in self._adapter_weights(name)}
        unfinished = folder / f".adapter.{name}.{os.getpid()}"
        save_file(weights, unfinished, metadata={"format": "pt", _FACTS: json.dumps(facts)})
        unfinished.replace(folder / f"adapter.{name}.safetensors")
        if tokenizer is not None:
            tokenizer.save_pretrained(folder / name)

    def load_adapter(self, target_lang: str, path: str | None = None, **kwargs) -> None:  # type: ignore[override]
        """
        Load an adapter and its heads, enable it, and disable the others.

        The tokenizer of the new head is `AutoTokenizer.from_pretrained(path, subfolder=target_lang)`.

        Args:
            target_lang: name of the adapter.
            path: folder or Hub repository that holds it; that of the model if not given.
            **kwargs: `revision`, `token`, `cache_dir` and the like, for the Hub.

        Raises:
            OSError: if there is no such file.
            ValueError: if it is of another encoder, or damaged.
        """
        place = path or self.config.name_or_path
        file = cached_file(place, f"adapter.{target_lang}.safetensors", **kwargs)
        try:
            with safe_open(file, framework="pt") as stored:
                facts = json.loads((stored.metadata() or {})[_FACTS])
                weights = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors has an exception of its own, which is not public
            raise ValueError(f"{file} is not an adapter of a Citrinet ({error}).") from error
        if facts["hidden_sizes"] != self.config.hidden_sizes:
            raise ValueError(f"{file} belongs to an encoder of {facts['hidden_sizes']} channels, not to this one.")
        if facts["adapter"] and target_lang not in [adapter["name"] for adapter in self.config.adapters]:
            self.new_adapter(facts["adapter"])
        self.new_heads(facts["vocab_size"], facts["pad_token_id"], facts["tag_labels"])
        self.enable_adapter(target_lang)
        expected = dict(self._adapter_weights(target_lang))
        if expected.keys() != weights.keys() or any(expected[key].shape != weights[key].shape for key in expected):
            raise ValueError(f"{file}: its weights are not those that its description names.")
        with torch.no_grad():
            for key, tensor in expected.items():
                tensor.copy_(weights[key])

    def _adapter_weights(self, name: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and weights of an adapter and of the heads."""
        for key, tensor in self.state_dict().items():
            if key.startswith(_HEADS) or f".adapters.{name}." in key:
                yield key, tensor

    def _enabled_adapters(self) -> Iterator[nn.Module]:
        for block in self.model.blocks:
            yield from (adapter for adapter in block.adapters.values() if adapter.enabled)


__all__ = ["CitrinetAdapterMixin"]
