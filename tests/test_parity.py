"""The same numbers as NeMo, on checkpoints that real NeMo made and ran (see regenerate_nemo_fixtures.py)."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCTC, AutoProcessor

from citrinet import CitrinetFeatureExtractor
from citrinet.convert import convert_nemo

GOLDENS = {
    "zh_small": "zh_small",
    "zh_small_agg": "zh_small",  # the same network with an aggregate tokenizer and no tag heads
    "base_small": "base_small",
    "options_char": "options_char",
    "options_unigram": "options_unigram",
}
HALF_A_SECOND = 8000


class Reference:
    """A converted checkpoint and what NeMo computed with it."""

    def __init__(self, nemo_dir, output, name):
        convert_nemo(nemo_dir / f"{name}.nemo", output)
        self.name = name
        self.golden = np.load(nemo_dir / f"golden_{GOLDENS[name]}.npz")
        self.model = AutoModelForCTC.from_pretrained(output).eval()
        self.processor = AutoProcessor.from_pretrained(output)
        self.lengths = self.golden["wav_len"].tolist()
        self.waveforms = [self.golden["wav"][i, :n] for i, n in enumerate(self.lengths)]

    @torch.no_grad()
    def run(self, waveforms):
        """Features and model output; each as one would call them."""
        inputs = self.processor(waveforms, sampling_rate=16000)
        return inputs, self.model(**inputs, output_hidden_states=True)

    def text(self, which):
        """NeMo's greedy text of every item, `batch` or `single`."""
        return json.loads(str(self.golden[f"text_{which}"]))


# One of the three large ones is enough for the quick tests.
_PARAMS = [
    pytest.param(name, marks=pytest.mark.slow if name in ("zh_small_agg", "base_small") else ()) for name in GOLDENS
]


@pytest.fixture(scope="module", params=_PARAMS)
def reference(request, nemo_dir, tmp_path_factory):
    return Reference(nemo_dir, tmp_path_factory.mktemp("parity") / request.param, request.param)


@pytest.fixture(scope="module")
def batch(reference):
    return reference.run(reference.waveforms)


def worst(ours: torch.Tensor, nemo: np.ndarray, valid: int) -> float:
    """Largest difference over valid frames; NeMo's array is (C, T) or (T, C) as ours is made to be before."""
    return float(np.abs(ours[:valid].numpy() - nemo[:valid]).max())


@pytest.mark.slow
def test_features(reference, batch):
    inputs, _ = batch
    assert inputs["attention_mask"].sum(1).tolist() == reference.golden["feat_len"].tolist()
    for i, samples in enumerate(reference.lengths):
        tolerance = 1e-4 if samples >= HALF_A_SECOND else 2e-4
        nemo = reference.golden["feat"][i].T
        assert worst(inputs["input_features"][i], nemo, int(reference.golden["feat_len"][i])) < tolerance


def test_padding_frames_of_features_are_zero(batch):
    inputs, _ = batch
    assert not inputs["input_features"][inputs["attention_mask"] == 0].any()


def test_every_block(reference, batch):
    if "block_out_0" not in reference.golden:
        pytest.skip("this golden holds no block outputs")
    hidden_states = batch[1].hidden_states
    for block in range(reference.model.config.num_hidden_layers):
        nemo, lengths = reference.golden[f"block_out_{block}"], reference.golden[f"block_len_{block}"]
        scale = max(np.abs(nemo[i, :, :n]).max() for i, n in enumerate(lengths))
        for i, n in enumerate(lengths):
            assert worst(hidden_states[block + 1][i], nemo[i].T, n) < 1e-3 * scale, f"block {block}, item {i}"


def test_batch(reference, batch):
    output, golden = batch[1], reference.golden
    frames = golden["enc_len"].tolist()
    assert output.attention_mask.sum(1).tolist() == frames
    log_probabilities = output.logits.log_softmax(-1)
    scale = max(np.abs(golden["enc"][i, :, :n]).max() for i, n in enumerate(frames))
    for i, n in enumerate(frames):
        assert worst(output.last_hidden_state[i], golden["enc"][i].T, n) < 1e-3 * scale
        assert worst(log_probabilities[i], golden["logp"][i], n) < 2e-3


@pytest.mark.slow
def test_single(reference):
    scale = np.abs(reference.golden["enc"]).max()
    for i, waveform in enumerate(reference.waveforms):
        n = int(reference.golden["enc_len"][i])
        output = reference.run(waveform)[1]
        assert worst(output.last_hidden_state[0], reference.golden[f"enc_s{i}"].T, n) < 1e-3 * scale
        assert worst(output.logits[0].log_softmax(-1), reference.golden[f"logp_s{i}"], n) < 2e-3


@pytest.mark.slow
def test_greedy_text(reference, batch):
    ids = reference.model.generate(**batch[0])
    assert reference.processor.batch_decode(ids) == reference.text("batch")
    singles = [reference.model.generate(**reference.processor(w, sampling_rate=16000)) for w in reference.waveforms]
    assert [reference.processor.batch_decode(ids)[0] for ids in singles] == reference.text("single")


def test_tag_logits(reference, batch):
    categories = reference.model.config.tag_labels
    if not categories:
        assert batch[1].tag_logits is None
        pytest.skip("this checkpoint has no tag heads")
    for category in categories:
        nemo = reference.golden[f"tag_{category}"]
        assert np.abs(batch[1].tag_logits[category].numpy() - nemo).max() < 1e-3


@pytest.mark.slow
def test_one_utterance_is_the_same_in_any_batch(reference, batch):
    for i, waveform in enumerate(reference.waveforms):
        n = int(reference.golden["enc_len"][i])
        alone = reference.run(waveform)[1].logits[0, :n]
        assert (alone - batch[1].logits[i, :n]).abs().max() < 1e-4
        pair = reference.run([reference.waveforms[0], waveform])[1].logits[1, :n]
        assert (pair - alone).abs().max() < 1e-4


def test_detokenization(reference):
    if "detok_ids" not in reference.golden:
        pytest.skip("this golden holds no token sequences")
    ids, texts = (json.loads(str(reference.golden[f"detok_{part}"])) for part in ("ids", "text"))
    tokenizer = reference.processor.tokenizer
    assert [tokenizer.decode(sequence, group_tokens=False) for sequence in ids] == texts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zh_small", "base_small"])
def test_older_front_end(name, nemo_dir, tmp_path):
    """
    NeMo up to 2.4 reflects the signal at its ends, in a batch at the end of the padding. Ours treats an utterance as NeMo
    treats one alone, so the items of the golden batch are computed here from the padded waveform that NeMo saw.
    """
    convert_nemo(nemo_dir / f"{name}.nemo", tmp_path / name, frontend="nemo-2.4")
    model = AutoModelForCTC.from_pretrained(tmp_path / name).eval()
    extractor = AutoProcessor.from_pretrained(tmp_path / name).feature_extractor
    golden = np.load(nemo_dir / f"golden_{name}.npz")
    longest = int(golden["wav_len"].argmax())
    assert golden["wav_len"][longest] == golden["wav"].shape[1]
    alone = extractor(golden["wav"][longest], sampling_rate=16000, return_tensors="pt")
    assert worst(alone["input_features"][0], golden["feat24"][longest].T, int(golden["feat24_len"][longest])) < 1e-4

    features = []
    for waveform, frames in zip(golden["wav"], golden["feat24_len"], strict=True):
        features.append(extractor.normalize(extractor.log_mel(waveform)[:, :frames]))
    inputs = extractor.pad({"input_features": features}, pad_to_multiple_of=16, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    scale = np.abs(golden["enc24"]).max()
    for i, (frames, encoded) in enumerate(zip(golden["feat24_len"], golden["enc24_len"], strict=True)):
        tolerance = 1e-4 if golden["wav_len"][i] >= HALF_A_SECOND else 2e-4
        assert worst(inputs["input_features"][i], golden["feat24"][i].T, int(frames)) < tolerance
        assert worst(output.last_hidden_state[i], golden["enc24"][i].T, int(encoded)) < 1e-3 * scale


def test_front_ends_differ_by_one_frame():
    waveform = np.sin(np.arange(16000) / 7).astype(np.float32)
    frames = {f: CitrinetFeatureExtractor(frontend=f).extract(waveform).shape[0] for f in ("nemo-2.5", "nemo-2.4")}
    assert frames == {"nemo-2.5": 100, "nemo-2.4": 101}
