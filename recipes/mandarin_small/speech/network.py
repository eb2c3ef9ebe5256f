"""
Kokoro-82M, a synthesiser based on StyleTTS 2 (Li et al. 2023) and iSTFTNet (Kaneko et al. 2022), for batches.

Modules have the names of the original weights. A frame is 25 ms; [`layers`] explains masks.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AlbertConfig, AlbertModel

from .layers import Conv1d, ConvTranspose1d, SnakeBlock, StyledBlock

RATE = 24_000
FRAME = 600  # samples
STYLE = 128  # a voice's style has two such parts, for timbre and for prosody
SYMBOLS, HIDDEN, LONGEST_DURATION = 178, 512, 50
N_FFT, HOP = 20, 5


class Encoded(NamedTuple):
    """Encoded texts of a batch; (batch, tokens, ...)."""

    prosody: Tensor  # (..., 640), for the prediction of pitch and energy
    sound: Tensor  # (..., 512), for the decoder
    durations: Tensor  # in frames, 0 for padding


class Kokoro(nn.Module):
    """The synthesiser: [`encode`] tokens, spread them over their frames, [`speak`]."""

    def __init__(self) -> None:
        super().__init__()
        albert = AlbertConfig(
            vocab_size=SYMBOLS,
            embedding_size=128,
            hidden_size=768,
            num_attention_heads=12,
            intermediate_size=2048,
            num_hidden_layers=12,
            max_position_embeddings=512,
        )
        self.bert = AlbertModel(albert, add_pooling_layer=False)
        self.bert_encoder = nn.Linear(768, HIDDEN)
        self.text_encoder = TextEncoder()
        self.predictor = ProsodyPredictor()
        self.decoder = Decoder()

    def encode(self, tokens: Tensor, lengths: Tensor, styles: Tensor, speeds: Tensor) -> Encoded:
        """
        Encode phonemes.

        Args:
            tokens: (batch, tokens) int64, padded with any token.
            lengths: (batch,) int64 on the CPU.
            styles: (batch, 256).
            speeds: (batch,).
        """
        mask = _mask(lengths, tokens.shape[1], tokens.device)
        said = self.bert_encoder(self.bert(tokens, attention_mask=mask.long()).last_hidden_state)
        prosody, durations = self.predictor.read(said, styles[:, STYLE:], mask, lengths)
        durations = (durations / speeds[:, None]).round().clamp(min=1).long() * mask
        return Encoded(prosody, self.text_encoder(tokens, mask, lengths), durations)

    def speak(
        self,
        prosody: Tensor,
        sound: Tensor,
        lengths: Tensor,
        styles: Tensor,
        noise: bool = True,
        half: torch.dtype | None = None,
    ) -> Tensor:
        """
        Speak encoded texts.

        Args:
            prosody: (batch, frames, 640), zero beyond an utterance's end.
            sound: (batch, frames, 512), zero beyond an utterance's end.
            lengths: (batch,) int64 on the CPU, in frames.
            styles: (batch, 256).
            noise: whether the voice's source has noise, as in the original; without it the output is deterministic.
            half: precision of the decoder's products and activations, by default float32.

        Returns:
            (batch, frames * 600) float32 at 24 kHz.
        """
        mask = _mask(lengths, prosody.shape[1], prosody.device)
        pitch, energy = self.predictor.draw(prosody, styles[:, STYLE:], mask, lengths)
        with torch.autocast(sound.device.type, half, enabled=half is not None):
            audio: Tensor = self.decoder(sound.mT, pitch, energy, styles[:, :STYLE], mask, noise)
        return audio


class TextEncoder(nn.Module):
    """Encoder of tokens for the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, HIDDEN)
        layers = ((nn.Conv1d(HIDDEN, HIDDEN, 5, padding=2), nn.LayerNorm(HIDDEN)) for _ in range(3))
        self.cnn = nn.ModuleList(nn.ModuleList(layer) for layer in layers)
        self.lstm = _lstm(HIDDEN)

    def forward(self, tokens: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """(batch, tokens) to (batch, tokens, 512)."""
        keep = mask.unsqueeze(-1)
        x = self.embedding(tokens) * keep
        for layer in self.cnn:
            conv, norm = layer.children()
            x = F.leaky_relu(norm(conv(x.mT).mT), 0.2) * keep
        return _run(self.lstm, x, lengths)


class StyledNorm(nn.Module):
    """Layer norm whose scale and shift come from a style."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(STYLE, 2 * HIDDEN)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(batch, tokens, 512) and (batch, 1, 128) to the first's shape."""
        asked: Tensor = self.fc(style)
        scale, shift = asked.chunk(2, dim=-1)
        return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class DurationEncoder(nn.Module):
    """Encoder of tokens for the prediction of prosody."""

    def __init__(self) -> None:
        super().__init__()
        self.lstms = nn.ModuleList(module for _ in range(3) for module in (_lstm(HIDDEN + STYLE), StyledNorm()))

    def forward(self, said: Tensor, style: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """(batch, tokens, 512) to (batch, tokens, 640)."""
        style = style.unsqueeze(1)
        everywhere = style.expand(-1, said.shape[1], -1)
        x = torch.cat([said, everywhere], dim=-1) * mask.unsqueeze(-1)
        for lstm, norm in zip(self.lstms[::2], self.lstms[1::2], strict=True):
            x = torch.cat([norm(_run(lstm, x, lengths), style), everywhere], dim=-1) * mask.unsqueeze(-1)
        return x


class ProsodyPredictor(nn.Module):
    """Predictor of the durations of tokens, and of pitch and energy of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = DurationEncoder()
        self.lstm = _lstm(HIDDEN + STYLE)
        self.duration_proj = nn.ModuleDict({"linear_layer": nn.Linear(HIDDEN, LONGEST_DURATION)})
        self.shared = _lstm(HIDDEN + STYLE)
        self.F0, self.N = self._curve(), self._curve()
        self.F0_proj, self.N_proj = Conv1d(HIDDEN // 2, 1, 1), Conv1d(HIDDEN // 2, 1, 1)

    @staticmethod
    def _curve() -> nn.ModuleList:
        half = HIDDEN // 2
        blocks = StyledBlock(HIDDEN, HIDDEN, STYLE), StyledBlock(HIDDEN, half, STYLE, upsample=True)
        return nn.ModuleList([*blocks, StyledBlock(half, half, STYLE)])

    def read(self, said: Tensor, style: Tensor, mask: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, tokens, 512) to (batch, tokens, 640) for [`draw`], and durations (batch, tokens) at speed 1."""
        x = self.text_encoder(said, style, mask, lengths)
        summands: Tensor = self.duration_proj["linear_layer"](_run(self.lstm, x, lengths))
        return x, summands.sigmoid().sum(-1)

    def draw(self, x: Tensor, style: Tensor, mask: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, 640) to pitch in hertz and energy, (batch, 1, 2 * frames), zero beyond an utterance's end."""
        shared, mask = _run(self.shared, x, lengths).mT, mask.unsqueeze(1)
        curves = []
        for blocks, project in ((self.F0, self.F0_proj), (self.N, self.N_proj)):
            y, inside = shared, mask
            for block in blocks:
                y = block(y, style, inside)
                inside = _finer(mask, y.shape[-1])
            curves.append(project(y) * inside)
        return curves[0], curves[1]


class Decoder(nn.Module):
    """Decoder from encoded frames, pitch and energy to a waveform."""

    def __init__(self) -> None:
        super().__init__()
        self.F0_conv, self.N_conv = (nn.Conv1d(1, 1, 3, stride=2, padding=1) for _ in range(2))
        self.asr_res = nn.Sequential(Conv1d(HIDDEN, 64, 1))
        self.encode = StyledBlock(HIDDEN + 2, 1024, STYLE)
        blocks = [StyledBlock(1024 + 2 + 64, 1024, STYLE) for _ in range(3)]
        self.decode = nn.ModuleList([*blocks, StyledBlock(1024 + 2 + 64, HIDDEN, STYLE, upsample=True)])
        self.generator = Generator()

    def forward(self, sound: Tensor, pitch: Tensor, energy: Tensor, style: Tensor, mask: Tensor, noise: bool) -> Tensor:
        """(batch, 512, frames) and two of (batch, 1, 2 * frames) to (batch, 600 * frames)."""
        mask = mask.unsqueeze(1)
        curves = self.F0_conv(pitch) * mask, self.N_conv(energy) * mask
        x = self.encode(torch.cat([sound, *curves], dim=1), style, mask)
        for block in self.decode:
            x = block(torch.cat([x, self.asr_res(sound), *curves], dim=1), style, mask)
        audio: Tensor = self.generator(x, pitch, style, mask, noise)
        return audio


class Generator(nn.Module):
    """iSTFTNet with a harmonic source (Wang et al. 2019): predicts short-time spectra and inverts them."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        bins = N_FFT // 2 + 1
        self.m_source = Source()
        self.ups = nn.ModuleList(
            [ConvTranspose1d(512, 256, 20, stride=10, padding=5), ConvTranspose1d(256, 128, 12, stride=6, padding=3)]
        )
        self.noise_convs = nn.ModuleList([Conv1d(2 * bins, 256, 12, stride=6, padding=3), Conv1d(2 * bins, 128, 1)])
        self.noise_res = nn.ModuleList([SnakeBlock(256, 7, STYLE), SnakeBlock(128, 11, STYLE)])
        self.resblocks = nn.ModuleList(SnakeBlock(channels, k, STYLE) for channels in (256, 128) for k in (3, 7, 11))
        self.conv_post = Conv1d(128, 2 * bins, 7, padding=3)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

    def forward(self, x: Tensor, pitch: Tensor, style: Tensor, mask: Tensor, noise: bool) -> Tensor:
        """(batch, 512, 2 * frames) and (batch, 1, 2 * frames) to (batch, 600 * frames)."""
        frames = mask.sum(-1)
        ends = F.pad(_finer(mask, 120 * mask.shape[-1]), (1, 0), value=True)  # one spectrum more than hops
        spectra = self._spectra(self.m_source(pitch, noise), frames * FRAME) * ends
        x = F.leaky_relu(x, 0.1) * _finer(mask, x.shape[-1])
        for stage, inside in enumerate((_finer(mask, 20 * mask.shape[-1]), ends)):
            x = self.ups[stage](x)
            if stage == 1:
                x = F.pad(x, (1, 0), mode="reflect")
            source = self.noise_convs[stage](spectra.to(x.dtype))
            x = x + self.noise_res[stage](source, style, inside)
            blocks = self.resblocks[3 * stage : 3 * stage + 3]
            x = sum(block(x, style, inside) for block in blocks) / 3
            x = F.leaky_relu(x, 0.1 if stage == 0 else 0.01) * inside
        logits, phases = self.conv_post(x).float().chunk(2, dim=1)
        spectrum = torch.polar(torch.exp(logits), torch.sin(phases)) * ends
        return torch.istft(spectrum, N_FFT, HOP, window=self.window)

    def _spectra(self, source: Tensor, ends: Tensor) -> Tensor:
        """(batch, samples) to magnitudes and phases (batch, 22, samples / 5 + 1), reflected at the ends."""
        reach = N_FFT // 2
        steps = torch.arange(reach, device=source.device)
        padded = F.pad(source, (reach, reach), mode="reflect")
        padded.scatter_(1, ends + reach + steps, source.gather(1, ends - 2 - steps))
        spectrum = torch.stft(padded, N_FFT, HOP, window=self.window, center=False, return_complex=True)
        # Lowest and highest frequency are real. A transform may give -0 there, and thus the phase -π instead of π.
        spectrum.imag[:, [0, -1]] = 0
        return torch.cat([spectrum.abs(), spectrum.angle()], dim=1)


class Source(nn.Module):
    """Source signal: nine harmonics of the pitch, and noise where there is no pitch."""

    def __init__(self, harmonics: int = 9):
        super().__init__()
        self.l_linear = nn.Linear(harmonics, 1)

    def forward(self, pitch: Tensor, noise: bool) -> Tensor:
        """(batch, 1, 2 * frames) to (batch, 600 * frames) in float32."""
        each = FRAME // 2
        # In float64: there are thousands of cycles, and a hundredth of one matters.
        cycles = F.interpolate((pitch.double() / RATE).cumsum(-1) * each, scale_factor=float(each), mode="linear")
        phase = (cycles - cycles.floor()).float().squeeze(1) * (2 * torch.pi)
        voiced = (pitch.squeeze(1) > 10).float().repeat_interleave(each, dim=-1)
        weights = self.l_linear.weight[0]
        wave = sum(weight * torch.sin(phase * n) for n, weight in enumerate(weights, start=1)) * 0.1 * voiced
        if noise:  # independent in every harmonic
            wave = wave + torch.randn_like(wave) * weights.norm() * torch.where(voiced > 0, 0.003, 0.1 / 3)
        return torch.tanh(wave + self.l_linear.bias)


def _mask(lengths: Tensor, width: int, device: torch.device) -> Tensor:
    """(batch,) on the CPU to (batch, width), true inside an utterance."""
    return torch.arange(width, device=device) < lengths.to(device, non_blocking=True).unsqueeze(1)


def _finer(mask: Tensor, width: int) -> Tensor:
    """A mask (batch, 1, time) at a higher resolution, a multiple of its own."""
    return mask.repeat_interleave(width // mask.shape[-1], dim=-1)


def _lstm(inputs: int) -> nn.LSTM:
    return nn.LSTM(inputs, HIDDEN // 2, batch_first=True, bidirectional=True)


def _run(lstm: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """(batch, time, channels) to (batch, time, 512); the backward direction starts at the end of each row."""
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]
