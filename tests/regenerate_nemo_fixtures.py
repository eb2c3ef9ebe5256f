"""Rebuild, or check, the NeMo reference data under ``tests/fixtures/nemo``.

Each ``<name>.nemo`` there is a small model with random weights, and ``golden_<name>.npz`` beside it
holds what NVIDIA NeMo itself computes with it. The test suite compares this package with those
arrays and so never needs NeMo. Run this script only to check the arrays or to make new ones, in an
environment of its own (Python 3.11):

    pip install torch==2.13.0 "nemo_toolkit[asr]==3.0.0" sentencepiece==0.2.3 numpy==2.4.6

    python tests/regenerate_nemo_fixtures.py --check          # compare, exit 1 above the tolerances
    python tests/regenerate_nemo_fixtures.py --write          # recompute the goldens
    python tests/regenerate_nemo_fixtures.py --make           # rebuild options_*.nemo and goldens

Add names (``--check base_small``) to restrict it to some of them. The audio (``wav``, ``wav_len``)
and the strings of ``detok_src`` are inputs, taken from the existing golden; all else is recomputed.

What the keys hold (B items, padded and run as one batch, unless said otherwise):

* ``feat``, ``feat_len``: log-mel features; ``enc``, ``enc_len``: encoder output; ``logp``:
  log-probabilities; ``block_out_<i>``, ``block_len_<i>``: output of encoder block i.
* ``feat24``, ``enc24`` and lengths: the same with the front end of NeMo 2.4 and older. It neither
  zeroes the padding after pre-emphasis nor pads with zeros, so its features depend on the batch:
  these arrays can be reproduced from the same batch only, not from single items.
* ``pooled``: mean of ``enc`` over valid frames; ``tag_<CATEGORY>``: logits of the tag heads on it.
* ``feat_s<i>``, ``enc_s<i>``, ``logp_s<i>``: item i alone, without padding.
* ``text_batch``, ``text_single``, ``ids_batch``, ``detok_*``: JSON.

Frames at or beyond an item's length are not zero in NeMo and depend on the batch.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import re
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch

FIXTURES = Path(__file__).resolve().parent / "fixtures" / "nemo"

# The aggregate-tokenizer archive has the weights of another fixture and shares its golden.
SHARED_GOLDENS = {"zh_small_agg": "zh_small"}

# Left out of the goldens of the option fixtures to keep the files small.
OMITTED = {"options_char": ("block_",), "options_unigram": ("block_",)}

# Largest absolute difference --check accepts, by the key's stem. On the same kind of CPU with two
# threads the difference is zero; one thread moves "enc" by 6e-5 and "logp" by 5e-4.
TOLERANCES = {
    "feat": 1e-4,
    "feat24": 1e-4,
    "block_out": 1e-3,
    "enc": 5e-4,
    "enc24": 5e-4,
    "logp": 3e-3,
    "pooled": 2e-4,
    "tag": 1e-3,
}


# --- running NeMo -------------------------------------------------------------------------------


def quiet_nemo():
    """Silence NeMo's start-up chatter, which would bury this script's report."""
    import logging

    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(logging.ERROR)


def load_model(path):
    """Restore an archive on the CPU in evaluation mode.

    ``strict=False`` because NeMo does not know the tag heads and would refuse the file.
    """
    from nemo.collections.asr.models import ASRModel

    return ASRModel.restore_from(str(path), strict=False, map_location="cpu").eval()


def read_members(path):
    """Return the files of a plain or gzipped archive by base name."""
    with tarfile.open(path, "r:*") as tar:
        files = [m for m in tar.getmembers() if m.isfile()]
        return {Path(m.name).name: tar.extractfile(m).read() for m in files}


def read_state_dict(path):
    """Return the raw state dict: restoring drops the tag heads without a word."""
    data = io.BytesIO(read_members(path)["model_weights.ckpt"])
    return torch.load(data, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def recorded_blocks(model):
    """Collect the output and length of every encoder block while the context is open."""
    records = []

    def record(_module, _inputs, output):
        """Keep the newest tensor of the block's output list."""
        records.append((output[0][-1].numpy(), output[1].numpy()))

    hooks = [block.register_forward_hook(record) for block in model.encoder.encoder]
    try:
        yield records
    finally:
        for hook in hooks:
            hook.remove()


@contextlib.contextmanager
def older_front_end(featurizer):
    """Turn the featurizer into that of NeMo 2.4 and older; the caller pre-emphasises.

    Three things differed: reflect padding in the STFT, one more frame, and no zeroing of the
    padding after pre-emphasis. NeMo zeroes only where it pre-emphasises, so that is switched off.
    """

    def stft(x):
        """Use reflect padding."""
        f = featurizer
        window = f.window.to(x)
        return torch.stft(x, f.n_fft, f.hop_length, f.win_length, window, pad_mode="reflect", return_complex=True)

    def get_seq_len(samples):
        """Count the frame centred on the last hop as well."""
        return torch.div(samples, featurizer.hop_length, rounding_mode="floor").long() + 1

    preemph = featurizer.preemph
    featurizer.preemph, featurizer.stft, featurizer.get_seq_len = None, stft, get_seq_len
    try:
        yield
    finally:
        featurizer.preemph = preemph
        del featurizer.stft, featurizer.get_seq_len


def features(model, wav, wav_len):
    """Return NeMo's own features and lengths."""
    return model.preprocessor(input_signal=wav, length=wav_len)


def older_features(model, wav, wav_len):
    """Return the features of NeMo 2.4 and older for the batch as a whole."""
    featurizer = model.preprocessor.featurizer
    emphasised = torch.cat([wav[:, :1], wav[:, 1:] - featurizer.preemph * wav[:, :-1]], dim=1)
    with older_front_end(featurizer):
        return features(model, emphasised, wav_len)


def forward(model, feat, feat_len):
    """Return encoder output, its lengths and log-probabilities."""
    enc, enc_len = model.encoder(audio_signal=feat, length=feat_len)
    return enc, enc_len, model.decoder(encoder_output=enc)


def masked_mean(enc, enc_len):
    """Average the encoder output over valid frames, which is what the tag heads see."""
    valid = torch.arange(enc.shape[-1])[None] < enc_len[:, None]
    return (enc * valid[:, None]).sum(-1) / enc_len[:, None]


def tag_logits(state_dict, pooled):
    """Apply the linear tag heads by hand, since NeMo has no module for them."""
    pattern = re.compile(r"tag_classifier\.heads\.(\w+)\.weight")
    heads = [(m[1], state_dict[m[0]]) for m in map(pattern.fullmatch, state_dict) if m]
    bias = "tag_classifier.heads.{}.bias"
    return {f"tag_{name}": (pooled @ weight.T + state_dict[bias.format(name)]).numpy() for name, weight in heads}


# --- text ---------------------------------------------------------------------------------------


def single_tokenizer(model):
    """Return the SentencePiece tokenizer, also from inside a one-language aggregate, or None."""
    tokenizer = getattr(model, "tokenizer", None)
    if is_aggregate(model):
        (tokenizer,) = tokenizer.tokenizers_dict.values()
    return tokenizer


def is_aggregate(model):
    """Tell whether the model has an aggregate tokenizer, whose decoding fails in NeMo 3.0.0."""
    return hasattr(getattr(model, "tokenizer", None), "tokenizers_dict")


def detokenize(model, ids):
    """Turn token ids into text as NeMo does, with one space removed before punctuation."""
    if not is_aggregate(model):
        return model.decoding.decode_tokens_to_str_with_strip_punctuation(ids)
    text = single_tokenizer(model).ids_to_text(ids)
    marks = "".join(sorted(model.decoding.supported_punctuation))
    return re.sub(rf"\s([{re.escape(marks)}])", r"\1", text)


def collapse(ids, blank):
    """Merge repeats and drop blanks."""
    return [i for i, _ in itertools.groupby(ids) if i != blank]


def greedy(model, logp, enc_len):
    """Return the transcripts and the per-frame ids of a batch."""
    if is_aggregate(model):
        ids = [row[:n].argmax(-1).tolist() for row, n in zip(logp, enc_len, strict=True)]
        return [detokenize(model, collapse(i, logp.shape[-1] - 1)) for i in ids], ids
    hypotheses = model.decoding.ctc_decoder_predictions_tensor(logp, decoder_lengths=enc_len, return_hypotheses=True)
    return [h.text for h in hypotheses], [h.y_sequence.tolist() for h in hypotheses]


def encode_text(model, text):
    """Encode with the tokenizer, or label by label for a character model."""
    tokenizer = single_tokenizer(model)
    if tokenizer is not None:
        return tokenizer.text_to_ids(text)
    labels = list(model.decoder.vocabulary)
    return [labels.index(char) for char in text]


def as_json(value):
    """Store lists of strings or ids as one JSON string, which ``np.load`` reads without pickle."""
    return np.array(json.dumps(value, ensure_ascii=False))


# --- goldens ------------------------------------------------------------------------------------


def golden_path(folder, name):
    """Return where the golden of a fixture lies."""
    return folder / f"golden_{SHARED_GOLDENS.get(name, name)}.npz"


def read_golden(path):
    """Load a golden into memory."""
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}


def batch_outputs(model, wav, wav_len):
    """Compute the keys of the batched run, with the newer and the older front end."""
    with recorded_blocks(model) as blocks:
        feat, feat_len = features(model, wav, wav_len)
        enc, enc_len, logp = forward(model, feat, feat_len)
    older, older_len = older_features(model, wav, wav_len)
    older_enc, older_enc_len, _ = forward(model, older, older_len)
    out = {"feat": feat, "feat_len": feat_len, "enc": enc, "enc_len": enc_len, "logp": logp}
    out |= {"feat24": older, "feat24_len": older_len}
    out |= {"enc24": older_enc, "enc24_len": older_enc_len, "pooled": masked_mean(enc, enc_len)}
    out = {key: value.numpy() for key, value in out.items()}
    for i, (block, length) in enumerate(blocks):
        out |= {f"block_out_{i}": block, f"block_len_{i}": length}
    texts, ids = greedy(model, logp, enc_len)
    return out | {"text_batch": as_json(texts), "ids_batch": as_json(ids)}


def single_outputs(model, wav, wav_len):
    """Compute the keys of every item run alone."""
    out, texts = {}, []
    for i, samples in enumerate(wav_len.tolist()):
        feat, feat_len = features(model, wav[i : i + 1, :samples], wav_len[i : i + 1])
        enc, enc_len, logp = forward(model, feat, feat_len)
        for key, value in (("feat", feat), ("enc", enc), ("logp", logp)):
            out[f"{key}_s{i}"] = value[0].numpy()
        texts += greedy(model, logp, enc_len)[0]
    return out | {"text_single": as_json(texts)}


def detok_outputs(model, sources):
    """Compute ids and decoded text of the given strings."""
    ids = [encode_text(model, text) for text in sources]
    texts = [detokenize(model, i) for i in ids]
    return {
        "detok_src": as_json(sources),
        "detok_ids": as_json(ids),
        "detok_text": as_json(texts),
    }


def compute_golden(path, inputs):
    """Compute the golden of one archive from ``wav``, ``wav_len`` and ``detok_src``.

    The model is restored outside inference mode: weights made inside it take other kernels.
    """
    model, name = load_model(path), path.name.removesuffix(".nemo")
    with torch.inference_mode():
        out = model_outputs(model, read_state_dict(path), inputs)
    return {k: v for k, v in out.items() if not k.startswith(OMITTED.get(name, ("\0",)))}


def model_outputs(model, state_dict, inputs):
    """Collect all keys for a restored model."""
    wav, wav_len = torch.tensor(inputs["wav"]), torch.tensor(inputs["wav_len"])
    out = {"wav": inputs["wav"], "wav_len": inputs["wav_len"]}
    out |= batch_outputs(model, wav, wav_len) | single_outputs(model, wav, wav_len)
    out |= tag_logits(state_dict, torch.tensor(out["pooled"]))
    return out | detok_outputs(model, json.loads(str(inputs["detok_src"])))


def stem(key):
    """Strip indices and categories off a key: the name its tolerance goes by."""
    return "tag" if key.startswith("tag_") else re.sub(r"_s?\d+$", "", key)


def difference(new, old):
    """Return the largest difference: infinite for other shapes, strings and integers if unequal."""
    if new.shape != old.shape or new.dtype.kind != old.dtype.kind:
        return float("inf")
    if new.dtype.kind == "U":
        return 0.0 if json.loads(str(new)) == json.loads(str(old)) else float("inf")
    if new.dtype.kind == "i":
        return 0.0 if (new == old).all() else float("inf")
    return float(np.abs(new - old).max()) if np.isfinite(new).all() else float("inf")


def compare(name, new, old):
    """Print the difference of every key and return the number of failures."""
    if name in SHARED_GOLDENS:
        old = {k: v for k, v in old.items() if not k.startswith("tag_")}
    failures = 0
    for key in sorted(new.keys() | old.keys()):
        both = key in new and key in old
        found, allowed = difference(new[key], old[key]) if both else float("inf"), 0.0
        if both and new[key].dtype.kind == "f":
            allowed = TOLERANCES.get(stem(key), 0.0)
        verdict = "ok" if found <= allowed else "FAIL" if both else "FAIL (key on one side only)"
        failures += verdict != "ok"
        print(f"{name:16} {key:14} {found:9.2e}  tolerance {allowed:7.0e}  {verdict}")
    return failures


def check(folder, names):
    """Compare fresh goldens with the stored ones; return the number of failures."""
    failures = 0
    for name in names:
        stored = read_golden(golden_path(folder, name))
        failures += compare(name, compute_golden(folder / f"{name}.nemo", stored), stored)
    print(f"{failures} failure(s)")
    return failures


def write(folder, names):
    """Recompute and overwrite the goldens."""
    for name in names:
        if name in SHARED_GOLDENS:
            print(f"{name}: shares the golden of {SHARED_GOLDENS[name]}, nothing to write")
            continue
        path = golden_path(folder, name)
        np.savez_compressed(path, **compute_golden(folder / f"{name}.nemo", read_golden(path)))
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


# --- making the option fixtures -----------------------------------------------------------------

SAMPLE_COUNTS = (320, 11200, 25600)

# Chosen so that the best two tokens of every frame are well apart (by 0.05 and 0.12).
SEEDS = {"options_char": 41, "options_unigram": 22}

CHAR_LABELS = [
    " ",
    *"的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会",
    *"abcdefgh",
    *"'。，？",
]
CHAR_SOURCES = ["我们在中国。", "你 ，我 ？ ab 'c", "  他 来  。了", "。 ", "的", ""]

TAGS = [
    *("AGE_14_25", "AGE_26_40", "GENDER_FEMALE", "GENDER_MALE", "DIALECT_NORTH"),
    *("ENTITY_SONG_NAME", "ENTITY_PERSON_NAME", "ENTITY_CITY", "END"),
]
SENTENCES = [
    "我今天去听歌。 AGE_14_25 GENDER_FEMALE DIALECT_NORTH",
    "请你放 ENTITY_SONG_NAME 月亮 END ，好吗？ AGE_26_40 GENDER_MALE",
    "他们明天不来。 AGE_26_40 GENDER_FEMALE",
    "我们在 ENTITY_CITY 北京 END 看月亮。 AGE_14_25 GENDER_MALE DIALECT_NORTH",
    "你请 ENTITY_PERSON_NAME 小明 END 来听歌，好不好？ AGE_26_40 GENDER_MALE",
    "明天我去 ENTITY_CITY 北京 END 。 AGE_14_25 GENDER_FEMALE",
    "他们在听 ENTITY_SONG_NAME 小月亮 END 吗？ AGE_14_25 GENDER_FEMALE DIALECT_NORTH",
    "今天不好，明天好。 AGE_26_40 GENDER_MALE DIALECT_NORTH",
    "小明去看歌，我们不去。 AGE_14_25 GENDER_MALE",
    "我听 ENTITY_PERSON_NAME 小天 END 的歌，你听不听？ AGE_26_40 GENDER_FEMALE",
    "请他们来看，请你们来听。 AGE_26_40 GENDER_FEMALE DIALECT_NORTH",
    "今天的月亮好看吗？不好看。 AGE_14_25 GENDER_MALE",
]
UNIGRAM_SOURCES = [
    "请你放 ENTITY_SONG_NAME 月亮 END ，好吗？ AGE_26_40 GENDER_MALE",
    "我们今天去ENTITY_CITY 北京END看 。 DIALECT_NORTH",
    "他说 ：不 ，好",
    "  小明  的   歌 ",
    "END",
    "",
]


def synthetic_audio(samples, seed):
    """Return a voiced glide, a chirp and noise on the 16-bit grid, which compresses well."""
    rng, time = np.random.default_rng(seed), np.arange(samples) / 16000
    seconds = max(samples / 16000, 0.1)
    pitch = rng.uniform(110, 200) + 40 * np.sin(2 * np.pi * rng.uniform(1, 4) * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 16000
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    points = 4 + int(8 * seconds)
    envelope = np.interp(time, np.linspace(0, seconds, points), rng.uniform(0.02, 1, points))
    chirp = np.sin(2 * np.pi * (300 * time + rng.uniform(200, 2500) * time**2 / seconds))
    mixed = envelope * voice + 0.3 * envelope[::-1] * chirp + 0.1 * rng.standard_normal(samples)
    return (np.round(8000 * mixed / np.abs(mixed).max()) / 32768).astype(np.float32)


def synthetic_batch(seed):
    """Return the padded audio of an option fixture and its lengths."""
    lengths = np.array(SAMPLE_COUNTS, dtype=np.int64)
    wav = np.zeros((len(lengths), lengths.max()), dtype=np.float32)
    for i, samples in enumerate(lengths):
        wav[i, :samples] = synthetic_audio(int(samples), seed + i)
    return wav, lengths


def block(filters, repeat, kernel, *, stride=1, residual=True, **extra):
    """Describe one encoder block as NeMo's configuration does."""
    shape = {"filters": filters, "repeat": repeat, "kernel": [kernel], "stride": [stride]}
    rest = {"dilation": [1], "dropout": 0.1, "residual": residual, "separable": True, "se": True}
    if stride > 1:
        extra |= {"stride_last": True, "residual_mode": "stride_add"}
    return shape | rest | extra


def char_blocks():
    """Return blocks of unequal width with one stride: nothing Citrinet-1024 has."""
    se, gamma = {"se_context_size": 16}, {"se_context_size": 16, "kernel_size_factor": 0.5}
    return [
        block(16, 1, 5, residual=False, **se),
        block(16, 2, 11, stride=2, **gamma),
        block(24, 3, 13, **gamma),
        block(24, 1, 15, **gamma),
        block(32, 1, 41, residual=False, se_context_size=16, kernel_size_factor=0.25),
    ]


def unigram_blocks():
    """Return blocks with the usual total stride of 8, the first one narrower than the others."""
    gamma = {"se_context_size": -1, "kernel_size_factor": 0.25}
    return [
        block(16, 1, 5, residual=False, se_context_size=-1),
        block(24, 2, 11, stride=2, **gamma),
        block(24, 2, 21, stride=2, **gamma),
        block(24, 3, 25, stride=2, **gamma),
        block(24, 1, 41, residual=False, **gamma),
    ]


def model_config(encoder, blocks, decoder, **extra):
    """Return the parts of a model configuration that matter for inference."""
    modules = "nemo.collections.asr.modules"
    front_end = {"sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025}
    front_end |= {"window_stride": 0.01, "window": "hann", "features": 80, "n_fft": 512}
    front_end |= {"frame_splicing": 1, "dither": 1e-5, "pad_to": 16, "stft_conv": False}
    augment = {"freq_masks": 2, "time_masks": 2, "freq_width": 27, "time_width": 70}
    encoder = {"_target_": f"{modules}.{encoder}", "feat_in": 80, "activation": "relu"}
    encoder |= {"conv_mask": True, "jasper": blocks}
    decoder = {"_target_": f"{modules}.ConvASRDecoder", "feat_in": blocks[-1]["filters"]} | decoder
    return {
        "sample_rate": 16000,
        "preprocessor": {"_target_": f"{modules}.AudioToMelSpectrogramPreprocessor"} | front_end,
        "spec_augment": {"_target_": f"{modules}.SpectrogramAugmentation"} | augment,
        "encoder": encoder,
        "decoder": decoder,
    } | extra


def build_char_model():
    """Build a character model without adapters and with windowed squeeze-excitation."""
    from nemo.collections.asr.models import EncDecCTCModel
    from omegaconf import OmegaConf

    decoder = {"num_classes": len(CHAR_LABELS), "vocabulary": CHAR_LABELS}
    config = model_config("ConvASREncoder", char_blocks(), decoder, labels=CHAR_LABELS)
    return EncDecCTCModel(cfg=OmegaConf.create(config), trainer=None)


def train_unigram(folder):
    """Train the tokenizer with a small normaliser of its own: the stock one weighs 240 KB."""
    import sentencepiece

    rules = folder / "rules.tsv"
    rules.write_text("FF0C\t2C\nFF1F\t3F\nFF01\t21\nFF1A\t3A\n", encoding="utf-8")
    proto = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=proto,
        model_type="unigram",
        vocab_size=52,
        character_coverage=1.0,
        user_defined_symbols=TAGS,
        normalization_rule_tsv=str(rules),
        bos_id=-1,
        eos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=forget_paths(proto.getvalue()))


def forget_paths(proto):
    """Drop the name of the temporary rule file from the model, for a reproducible archive."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    model.normalizer_spec.ClearField("normalization_rule_tsv")
    return model.SerializeToString()


def write_tokenizer(folder):
    """Write the three files NeMo expects of a tokenizer."""
    tokenizer = train_unigram(folder)
    pieces = [tokenizer.id_to_piece(i) for i in range(len(tokenizer))]
    words = [p[1:] if p.startswith("▁") else f"##{p}" for p in pieces[1:]]
    scored = [f"{p}\t{tokenizer.get_score(i):g}" for i, p in enumerate(pieces)]
    (folder / "tokenizer.model").write_bytes(tokenizer.serialized_model_proto())
    (folder / "tokenizer.vocab").write_text("\n".join(scored) + "\n", encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def build_unigram_model(folder):
    """Build a SentencePiece unigram model with two chained adapters and one switched off.

    The tokenizer is written to the folder, which must exist until the model is saved.
    """
    from nemo.collections.asr.models import EncDecCTCModelBPE
    from omegaconf import OmegaConf

    write_tokenizer(folder)
    tokenizer, decoder = {"dir": str(folder), "type": "bpe"}, {"num_classes": -1, "vocabulary": []}
    blocks = unigram_blocks()
    target = "conv_asr.ConvASREncoderAdapter"
    config = model_config(target, blocks, decoder, tokenizer=tokenizer)
    model = EncDecCTCModelBPE(cfg=OmegaConf.create(config), trainer=None)
    add_adapters(model, blocks[-1]["filters"])
    return model


def add_adapters(model, width):
    """Add the adapters; their order in the configuration is not the alphabetical one."""
    from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig

    options = {
        "zh_pre": {"dim": 8, "activation": "swish", "norm_position": "pre"},
        "domain_post": {"dim": 12, "activation": "relu", "norm_position": "post"},
        "unused": {"dim": 4, "activation": "swish", "norm_position": "pre"},
    }
    for name, option in options.items():
        model.add_adapter(name, LinearAdapterConfig(in_features=width, **option))
    model.set_enabled_adapters("unused", enabled=False)


@torch.no_grad()
def randomize(model, generator):
    """Draw norms and adapters anew: NeMo starts norms at one and adapters at zero."""
    for name, module in model.encoder.named_modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.weight.uniform_(0.5, 1.2, generator=generator)
            module.bias.normal_(0, 0.3, generator=generator)
        elif isinstance(module, torch.nn.LayerNorm):
            module.weight.normal_(0.5, 0.1, generator=generator)
            module.bias.normal_(0, 0.1, generator=generator)
        elif isinstance(module, torch.nn.Linear) and ".adapter_layer." in f".{name}":
            scale = 0.8 / module.in_features**0.5
            module.weight.normal_(0, scale, generator=generator)


def calibration_output(model, seed):
    """Encode equally long clips, so that no padding enters the statistics."""
    wav = torch.tensor(np.stack([synthetic_audio(32000, seed + i) for i in range(8)]))
    feat, feat_len = features(model, wav, torch.full((8,), wav.shape[1]))
    enc, enc_len = model.encoder(audio_signal=feat, length=feat_len)
    return enc[:, :, : int(enc_len[0])]


@torch.no_grad()
def calibrate(model, seed):
    """Set the BatchNorm statistics to those of real input.

    Random weights with untouched statistics amplify rounding errors until nothing can be compared.
    """
    norms = [m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    for step in range(4):
        calibration_output(model, seed + 100 + 8 * step)
    for norm in norms:
        norm.momentum = 0.1
        norm.eval()


@torch.no_grad()
def spread_decoder(model, seed, generator):
    """Scale and centre the output layer, so that texts vary and about half the frames are blank."""
    enc = calibration_output(model, seed + 200).transpose(0, 1).flatten(1)
    mean = enc.mean(1)
    layer = model.decoder.decoder_layers[0]
    scale = 2.5 / (enc - mean[:, None]).std() / enc.shape[0] ** 0.5
    layer.weight.normal_(0, float(scale), generator=generator)
    layer.bias.copy_(-(layer.weight[:, :, 0] @ mean))
    logits = layer.weight[:, :, 0] @ enc + layer.bias[:, None]
    layer.bias[-1] += torch.quantile(logits[:-1].max(0).values - logits[-1], 0.4)


def settle(model, seed):
    """Give the model calm random weights."""
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    randomize(model, generator)
    calibrate(model, seed)
    spread_decoder(model, seed, generator)


def renamed(members):
    """Name artifacts by content instead of NeMo's random prefix, in the configuration as well."""
    artifacts = [n for n in members if re.match(r"[0-9a-f]{32}_", n)]
    config = members["model_config.yaml"].decode("utf-8")
    out = {"model_weights.ckpt": members["model_weights.ckpt"]}
    for name in artifacts:
        new = hashlib.md5(members[name]).hexdigest() + name[32:]
        config, out[new] = config.replace(name, new), members[name]
    config = re.sub(r"^(  dir:) .*$", r"\1 tokenizers/unigram", config, flags=re.MULTILINE)
    return out | {"model_config.yaml": config.encode("utf-8")}


def pack(members, prefix):
    """Return a tar of the members without times and owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(members):
            info = tarfile.TarInfo(prefix + name)
            info.size = len(members[name])
            tar.addfile(info, io.BytesIO(members[name]))
    return buffer.getvalue()


def save(model, path, *, zipped):
    """Save through NeMo, then repack so that the same run gives the same bytes.

    One archive is gzipped with ``./`` before its names, as older NeMo versions wrote them.
    """
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.nemo"
        model.save_to(str(raw))
        packed = pack(renamed(read_members(raw)), "./" if zipped else "")
    path.write_bytes(gzip.compress(packed, mtime=0) if zipped else packed)


def make_char(path, seed):
    """Make ``options_char.nemo`` and return the strings to encode with it."""
    torch.manual_seed(seed)
    model = build_char_model()
    settle(model, seed)
    save(model, path, zipped=False)
    return CHAR_SOURCES


def make_unigram(path, seed):
    """Make ``options_unigram.nemo`` and return the strings to encode with it."""
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        model = build_unigram_model(Path(folder))
        settle(model, seed)
        save(model, path, zipped=True)
    return UNIGRAM_SOURCES


MAKERS = {"options_char": make_char, "options_unigram": make_unigram}


def make(folder, names):
    """Rebuild the option fixtures with their goldens."""
    for name in [n for n in MAKERS if n in names]:
        path = folder / f"{name}.nemo"
        sources = MAKERS[name](path, SEEDS[name])
        wav, wav_len = synthetic_batch(SEEDS[name])
        inputs = {"wav": wav, "wav_len": wav_len, "detok_src": as_json(sources)}
        golden = golden_path(folder, name)
        np.savez_compressed(golden, **compute_golden(path, inputs))
        for file in (path, golden):
            print(f"{file.name}: {file.stat().st_size / 1024:.0f} KiB")


# --- command line -------------------------------------------------------------------------------


def parse_arguments():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare with the stored goldens")
    action.add_argument("--write", action="store_true", help="overwrite the stored goldens")
    action.add_argument("--make", action="store_true", help="rebuild the option fixtures")
    parser.add_argument("names", nargs="*", help="fixtures to treat (default: all)")
    parser.add_argument("--folder", type=Path, default=FIXTURES, help="where the fixtures lie")
    parser.add_argument("--threads", type=int, default=2, help="the goldens were made with 2")
    return parser.parse_args()


def main():
    """Run the chosen action and exit with 1 if a check failed."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    quiet_nemo()
    if args.make:
        return make(args.folder, args.names or list(MAKERS))
    names = args.names or sorted(p.stem for p in args.folder.glob("*.nemo"))
    if args.write:
        return write(args.folder, names)
    return sys.exit(1 if check(args.folder, names) else 0)


if __name__ == "__main__":
    main()
