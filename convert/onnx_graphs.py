"""The three ONNX graphs of a model: front end, network, tag heads."""

import copy
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.nn import functional as F

from citrinet import CitrinetFeatureExtractor, CitrinetForCTC
from citrinet.feature_extraction_citrinet import LOG_GUARD, STD_GUARD
from citrinet.modeling_citrinet import CitrinetBlock, blank_padding
from citrinet.optimized.folding import fold_batch_norm


class FrontEnd(nn.Module):
    """
    Front end: waveforms to features, equal to those of [`CitrinetFeatureExtractor`] for each utterance alone.

    Args:
        features: the feature extractor to reproduce.
    """

    window: torch.Tensor
    mel_filters: torch.Tensor

    def __init__(self, features: CitrinetFeatureExtractor):
        super().__init__()
        self.hop, self.n_fft, self.preemphasis = features.hop_length, features.n_fft, features.preemphasis
        self.reflects = features.frontend == "nemo-2.4"
        side = (features.n_fft - features.win_length) // 2
        window = F.pad(torch.tensor(features.window), (side, features.n_fft - features.win_length - side))
        self.register_buffer("window", window)
        self.register_buffer("mel_filters", torch.tensor(features.mel_filters))

    def forward(self, waveform: torch.Tensor, waveform_length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N), (B,) samples -> (B, 80, T), zero beyond the end of an utterance, and (B,) frames."""
        inside = torch.arange(waveform.shape[1]) < waveform_length[:, None]
        before = F.pad(waveform[:, :-1], (1, 0))
        emphasized = (waveform - self.preemphasis * before) * inside
        padded = self._reflected(emphasized, waveform_length) if self.reflects else self._zero_padded(emphasized)
        frames = padded.unfold(1, self.n_fft, self.hop) * self.window
        # In double precision, which costs nothing here: runtimes round more than PyTorch, which affects the outputs.
        spectrum = torch.view_as_real(torch.fft.rfft(frames.double()))
        magnitude = spectrum.square().sum(dim=-1).sqrt().float()
        log_mel = torch.log(magnitude.square() @ self.mel_filters + LOG_GUARD)
        length = waveform_length // self.hop + self.reflects
        return _normalized(log_mel, length).transpose(1, 2), length

    def _zero_padded(self, samples: torch.Tensor) -> torch.Tensor:
        """Pad with zeros, on the right by one hop less than on the left, since the last valid frame starts there."""
        return F.pad(samples, (self.n_fft // 2, self.n_fft // 2 - self.hop))

    def _reflected(self, samples: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Pad each utterance by reflection on both sides, or with zeros if it is too short for that."""
        side = self.n_fft // 2
        place = torch.arange(samples.shape[1] + 2 * side)[None] - side
        last = length[:, None] - 1
        mirrored = last - (last - place.abs()).abs()
        values = samples.gather(1, mirrored.clamp(min=0))
        is_sample = (place >= 0) & (place <= last)
        return values * (is_sample | ((length[:, None] > side) & (place <= last + side)))


def _normalized(log_mel: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
    """
    Normalise to mean 0 and (unbiased) deviation 1 over valid frames, others zero: (B, T, F), (B,) -> (B, T, F).

    In double precision: if a band is empty, as above 4 kHz in a telephone call, its deviation is as small as the
    rounding error of a runtime that sums sequentially.
    """
    log_mel = log_mel.double()
    inside = (torch.arange(log_mel.shape[1]) < length[:, None])[..., None]
    count = length[:, None, None]
    centered = (log_mel - (log_mel * inside).sum(dim=1, keepdim=True) / count) * inside
    deviation = (centered.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    return (centered / (deviation + STD_GUARD)).float()


class Network(nn.Module):
    """
    Network: features to log-probabilities and encoder output, with masks.

    Args:
        network: the model, which is not changed: the graph has a copy with folded batch normalisation.
        dtype: dtype to compute in; inputs and outputs are float32.
    """

    def __init__(self, network: CitrinetForCTC, dtype: torch.dtype = torch.float32):
        super().__init__()
        network = copy.deepcopy(network).float().eval()  # type: ignore[no-untyped-call]
        for block in network.modules():
            if isinstance(block, CitrinetBlock):
                _fold_norms(block)
        _use_matmul(network)
        self.network = network.to(dtype)  # type: ignore[arg-type]  # as of Transformers' annotation

    def forward(self, audio_signal: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 80, T), (B,) frames -> (B, T', V), blank beyond the end of an utterance, and (B, C, T')."""
        features = audio_signal.transpose(1, 2)
        mask = torch.arange(features.shape[1]) < length[:, None]
        encoded = self.network.model(features, mask, return_dict=True)
        hidden_states, mask = encoded.last_hidden_state, encoded.attention_mask
        logprobs = F.log_softmax(self.network.ctc_head(hidden_states).float(), dim=-1)
        logprobs = blank_padding(logprobs, mask, self.network.config.pad_token_id)
        return logprobs, hidden_states.masked_fill(~mask[..., None], 0.0).float().transpose(1, 2)


class TagHeads(nn.Module):
    """Tag heads: mean of the encoder output to the logits of every category, sorted by name."""

    def __init__(self, network: CitrinetForCTC):
        super().__init__()
        heads = copy.deepcopy(network.tag_heads).float().eval()
        self.heads = nn.ModuleList(heads[category] for category in sorted(heads))

    def forward(self, pooled_encoder: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, C) -> (B, n) for each category."""
        return tuple(head(pooled_encoder) for head in self.heads)


class _MatMul(nn.Module):
    """Linear layer as a product with a constant weight (C_in, C_out), which ONNX's quantizer can quantize."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(linear.weight.T.contiguous(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        product = rows @ self.weight
        return product if self.bias is None else product + self.bias


def _fold_norms(block: CitrinetBlock) -> None:
    pairs = [(conv, "pointwise", "norm") for conv in block.convs]
    if block.residual is not None:
        pairs.append((block, "residual", "residual_norm"))
    for module, linear_name, norm_name in pairs:
        linear = getattr(module, linear_name)
        linear.weight, linear.bias = map(nn.Parameter, fold_batch_norm(linear, getattr(module, norm_name)))
        setattr(module, norm_name, nn.Identity())


def _use_matmul(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _MatMul(child))
        else:
            _use_matmul(child)


def write_front_end(features: CitrinetFeatureExtractor, path: Path, opset: int) -> None:
    """
    Write the front end.

    Inputs `waveform` (B, N) float32 and `waveform_length` (B,) int64, samples; outputs `features` (B, 80, T) float32
    and `features_length` (B,) int64, frames.
    """
    inputs = torch.randn(2, 16000), torch.tensor([16000, 8000])
    dynamic = {0: "batch", 1: "samples"}, {0: "batch"}
    _export(FrontEnd(features), inputs, dynamic, ["features", "features_length"], path, opset)


def write_network(network: CitrinetForCTC, path: Path, opset: int, dtype: torch.dtype = torch.float32) -> None:
    """
    Write the network.

    Inputs `audio_signal` (B, 80, T) float32 and `length` (B,) int64, frames; outputs `logprobs` (B, T', V) and
    `encoder_output` (B, C, T') float32.
    """
    inputs = torch.randn(2, network.config.num_mel_bins, 96), torch.tensor([96, 40])
    dynamic = {0: "batch", 2: "frames"}, {0: "batch"}
    _export(Network(network, dtype), inputs, dynamic, ["logprobs", "encoder_output"], path, opset)


def write_tag_heads(network: CitrinetForCTC, path: Path, opset: int) -> None:
    """Write the tag heads: `pooled_encoder` (B, C) float32 -> the logits (B, n) of every category, float32."""
    inputs = (torch.randn(2, network.config.hidden_size),)
    names = [f"{category}_logits" for category in sorted(network.config.tag_labels)]
    _export(TagHeads(network), inputs, ({0: "batch"},), names, path, opset)


def add_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Add metadata to a graph, for programs that read only the graph."""
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, metadata)
    onnx.save(graph, path)


def _export(
    graph: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    dynamic: tuple[dict[int, str], ...],
    outputs: list[str],
    path: Path,
    opset: int,
) -> None:
    program = torch.onnx.export(
        graph.eval(),
        inputs,
        dynamo=True,
        dynamic_shapes=dynamic,
        output_names=outputs,
        opset_version=opset,
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)


__all__ = ["FrontEnd", "Network", "TagHeads", "add_metadata", "write_front_end", "write_network", "write_tag_heads"]
