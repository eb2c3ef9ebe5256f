"""
Adapters: one encoder for several languages or domains, each with its own adapter, heads and tokenizer.

An adapter and its heads are stored in one file, see `adapter_files_citrinet.py`. The encoder, including the statistics
of batch normalisation, is frozen while an adapter is trained, so the file does not contain it.

Source: the network is NeMo's `LinearAdapter`; `load_adapter` follows that of MMS (arXiv:2305.13516) in Transformers.
"""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from .adapter_files_citrinet import (
    ADAPTER_FILE,
    HEAD_FACTS,
    check_adapter_name,
    check_adapter_weights,
    read_adapter,
    write_adapter,
)

BASE = "base"  # name for saving the heads of the model without an adapter
_WHERE = {"cache_dir", "force_download", "token", "revision", "local_files_only", "subfolder"}


class CitrinetAdapter(nn.Module):
    """Residual bottleneck, `x + up(act(down(x)))`, with layer normalisation before or after; NeMo's `LinearAdapter`."""

    def __init__(self, channels: int, adapter: dict[str, Any]):
        super().__init__()
        self.pre_norm = adapter["norm_position"] == "pre"
        self.enabled = adapter["enabled"]
        self.norm = nn.LayerNorm(channels)
        self.down = nn.Linear(channels, adapter["dim"], bias=False)
        self.act = ACT2FN[adapter["activation"]]
        self.up = nn.Linear(adapter["dim"], channels, bias=False)
        self.dropout = nn.Dropout(adapter["dropout"])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, C) -> (B, T, C)."""
        if not self.enabled:
            return hidden_states
        update = self.norm(hidden_states) if self.pre_norm else hidden_states
        update = self.up(self.act(self.down(update)))
        if not self.pre_norm:
            update = self.norm(update)
        output: torch.Tensor = hidden_states + self.dropout(update)
        return output


class CitrinetAdapterMixin:
    """Adapter methods of [`CitrinetForCTC`]: create, train, save and load adapters together with the heads."""

    config: Any
    model: Any
    ctc_head: nn.Linear
    tag_heads: nn.ModuleDict
    device: Any
    dtype: Any
    training: bool
    train: Any
    state_dict: Any
    requires_grad_: Any
    _init_weights: Any

    def new_adapter(self, adapter: dict[str, Any]) -> None:
        """
        Add an adapter to every block, enable it and disable the others. Before training it is the identity.

        Args:
            adapter: `{"name", "dim", ...}` as in [`CitrinetConfig`].

        Raises:
            ValueError: if the model already has an adapter of that name, or the description is invalid.
        """
        others = self.config.adapters
        if adapter["name"] in [other["name"] for other in others]:
            raise ValueError(f"the model has an adapter {adapter['name']!r} already: choose another name.")
        # A temporary configuration fills in defaults.
        adapter = type(self.config)(adapters=[adapter]).adapters[0]
        config = _changed(self.config, {"adapters": _chain([*others, adapter], [adapter["name"]])})
        parts = {prefix: part for prefix, part in _parts(config, adapter).items() if ".adapters." in prefix}
        self._install(config, self._untrained(parts))

    def new_heads(self, vocab_size: int, pad_token_id: int, tag_labels: dict[str, list[str]]) -> None:
        """
        Replace the model's heads with untrained ones.

        Args:
            vocab_size: number of outputs of the CTC head.
            pad_token_id: id of its blank.
            tag_labels: category -> labels of its tag head.

        Raises:
            ValueError: if the values are invalid.
        """
        facts = {"vocab_size": vocab_size, "pad_token_id": pad_token_id, "tag_labels": tag_labels}
        config = _changed(self.config, facts)
        self._install(config, self._untrained(_parts(config, None)))

    def enable_adapter(self, name: str | None) -> None:
        """
        Enable one adapter and disable the others; `None` disables all.

        The heads do not change, although they belong to an adapter just as its tokenizer does, see `load_adapter`.

        Raises:
            ValueError: if there is no such adapter.
        """
        self._install(
            _changed(self.config, {"adapters": _chain(self.config.adapters, [] if name is None else [name])}), {}
        )

    def freeze_base(self) -> None:
        """
        Freeze everything except the enabled adapters, the CTC head and the tag heads.

        Frozen batch normalisation stays in evaluation mode even after `train()`, so that its statistics do not change.
        """
        self.requires_grad_(False)
        adapters = (adapter for block in self.model.blocks for adapter in block.adapters.values() if adapter.enabled)
        for module in (self.ctc_head, self.tag_heads, *adapters):
            module.requires_grad_(True)
        self.train(self.training)

    def save_adapter(
        self, save_directory: str | Path, name: str, tokenizer: Any = None, dtype: torch.dtype | None = None
    ) -> Path:
        """
        Save an adapter with the heads, and the tokenizer that goes with them.

        Writes `adapter.NAME.safetensors`, and the tokenizer to the folder `NAME` next to it. The file appears when it
        is complete.

        Args:
            save_directory: folder to write to, usually that of the base model.
            name: name of an enabled adapter. `"base"` saves only the heads and the names of the enabled adapters, to
                return to them after another adapter was loaded. If no adapter is enabled, any other name does the same.
            tokenizer: tokenizer of the CTC head.
            dtype: type of the stored weights, such as `torch.float16`; defaults to the type they have.

        Returns:
            Path of the file.

        Raises:
            ValueError: if no adapter of that name is enabled.
        """
        check_adapter_name(name)
        adapter = next((adapter for adapter in self.config.adapters if adapter["name"] == name), None)
        enabled = [adapter["name"] for adapter in self.config.adapters if adapter["enabled"]]
        if name not in enabled and (adapter is not None or (enabled and name != BASE)):
            raise ValueError(f"no adapter {name!r} is enabled, but {enabled}: the heads would be those of another.")
        facts = {fact: getattr(self.config, fact) for fact in ("hidden_sizes", *HEAD_FACTS)}
        facts |= {"adapter": adapter, "enabled": enabled}
        weights = {key: tensor.to("cpu", dtype).contiguous() for key, tensor in self._adapter_weights(name)}
        return write_adapter(Path(save_directory), name, facts, weights, tokenizer)

    def load_adapter(self, target_lang: str | None = None, path: str | Path | None = None, **kwargs: Any) -> Any:
        """
        Load an adapter with its heads, and enable the adapters that were enabled when it was saved; disable all others.

        The tokenizer of the new head is `AutoTokenizer.from_pretrained(path, subfolder=target_lang)`. The arguments are
        those of MMS's `load_adapter`. Calls with arguments of PEFT are passed on to PEFT, for example when
        `from_pretrained` is given the folder of a LoRA.

        Args:
            target_lang: name of the adapter.
            path: folder or Hub repository of the adapter; defaults to that of the model.
            **kwargs: `revision`, `token`, `cache_dir`, `subfolder`, `local_files_only`, `force_download`, for the Hub.

        Raises:
            OSError: if there is no such file.
            ValueError: if the adapter does not fit the model or is damaged; the model is then unchanged.
        """
        if target_lang is None or kwargs.keys() - _WHERE or _is_peft(target_lang):
            arguments = {"peft_model_id": target_lang, "adapter_name": path, **kwargs}
            return super().load_adapter(**arguments)  # type: ignore[misc]
        check_adapter_name(target_lang)
        place = self.config.name_or_path if path is None else str(path)
        file = str(cached_file(place, ADAPTER_FILE.format(target_lang), **kwargs))
        facts, weights = read_adapter(file)
        try:
            config, parts = self._described(facts)
        except (ValueError, TypeError, AttributeError) as error:  # the last two: facts of a wrong type
            raise ValueError(f"{file} does not fit this model: {error}") from error
        check_adapter_weights(file, parts, weights)
        for prefix, part in parts.items():
            part.load_state_dict({key: weights[f"{prefix}.{key}"] for key in part.state_dict()}, assign=True)
        self._install(config, parts)
        return None

    def _described(self, facts: dict[str, Any]) -> tuple[Any, dict[str, nn.Module]]:
        """Make the configuration and the new parts of this model that the facts of a file describe."""
        if facts["hidden_sizes"] != self.config.hidden_sizes:
            raise ValueError(f"it belongs to an encoder of {facts['hidden_sizes']} channels.")
        adapter = facts["adapter"]
        adapters = [other for other in self.config.adapters if adapter is None or other["name"] != adapter["name"]]
        adapters += [] if adapter is None else [adapter]
        changes = {"adapters": _chain(adapters, facts["enabled"]), **{fact: facts[fact] for fact in HEAD_FACTS}}
        config = _changed(self.config, changes)
        return config, _parts(config, adapter)

    def _untrained(self, parts: dict[str, nn.Module]) -> dict[str, nn.Module]:
        for part in parts.values():
            part.to_empty(device=self.device).apply(self._init_weights)
        return parts

    def _install(self, config: Any, parts: dict[str, nn.Module]) -> None:
        """Install new parts in the network, and update the configuration to match."""
        for part in parts.values():
            part.to(self.device, self.dtype).train(self.training)
        for index, block in enumerate(self.model.blocks):
            adapters = {}
            for adapter in config.adapters:
                name = adapter["name"]
                prefix = f"model.blocks.{index}.adapters.{name}"
                adapters[name] = parts[prefix] if prefix in parts else block.adapters[name]
                adapters[name].enabled = adapter["enabled"]
            block.adapters = nn.ModuleDict(adapters)
        if "ctc_head" in parts:
            self.ctc_head = parts["ctc_head"]  # type: ignore[assignment]
            self.tag_heads = nn.ModuleDict({category: parts[f"tag_heads.{category}"] for category in config.tag_labels})
        self.config.update({fact: getattr(config, fact) for fact in ("adapters", *HEAD_FACTS)})

    def _adapter_weights(self, name: str) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield names and weights of an adapter and of the heads."""
        for key, tensor in self.state_dict().items():
            if key.startswith(("ctc_head.", "tag_heads.")) or f".adapters.{name}." in key:
                yield key, tensor


def _parts(config: Any, adapter: dict[str, Any] | None) -> dict[str, nn.Module]:
    """Make an adapter and the heads on the meta device: prefix of the weights' names -> module."""
    try:
        with torch.device("meta"):
            parts: dict[str, nn.Module] = {}
            if adapter is not None:
                for index, channels in enumerate(config.hidden_sizes):
                    parts[f"model.blocks.{index}.adapters.{adapter['name']}"] = CitrinetAdapter(channels, adapter)
            parts["ctc_head"] = nn.Linear(config.hidden_size, config.vocab_size)
            for category, labels in config.tag_labels.items():
                parts[f"tag_heads.{category}"] = nn.Linear(config.hidden_size, len(labels))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"no adapter can be made of {adapter}, or no head of {config.vocab_size} tokens.") from error
    return parts


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    """Return a changed and checked copy of a configuration."""
    config = deepcopy(config)
    config.update(deepcopy(changes))
    config._check()
    for adapter in config.adapters:
        check_adapter_name(adapter["name"])
    if not 0 <= config.pad_token_id < config.vocab_size:
        raise ValueError(f"`pad_token_id` is {config.pad_token_id}, which is none of {config.vocab_size} outputs.")
    return config


def _chain(adapters: list[dict[str, Any]], enabled: list[str]) -> list[dict[str, Any]]:
    """Enable exactly these adapters, in this order; the position of the others does not matter."""
    known = {adapter["name"]: adapter for adapter in adapters}
    if missing := [name for name in enabled if name not in known]:
        raise ValueError(f"there is no adapter {missing[0]!r}; the model has {sorted(known)}.")
    rest = [{**adapter, "enabled": False} for adapter in adapters if adapter["name"] not in enabled]
    return rest + [{**known[name], "enabled": True} for name in enabled]


def _is_peft(name: str | Path) -> bool:
    """Whether this is not an adapter name but a repository, or a folder written by PEFT."""
    return "/" in str(name) or Path(name, ADAPTER_CONFIG_NAME).is_file()


__all__ = ["CitrinetAdapter", "CitrinetAdapterMixin"]
