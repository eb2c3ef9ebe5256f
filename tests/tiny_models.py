"""A network and tokenizers small enough to make in a moment."""

import io
from functools import cache

import sentencepiece

from citrinet import CitrinetConfig, CitrinetTokenizer
from citrinet.tokenizer.building import build_tokenizer

_SENTENCES = [
    "今天北京的天气怎么样",
    "请播放一首好听的歌",
    "明天早上七点叫我起床",
    "上海的气温是二十五度",
    "打开客厅的灯，好吗？",
    "我今天晚上想听一首好听的歌。",
    "明天上海的天气好不好？",
    "play some music please",
    "the weather is fine today",
    "turn on the light in the living room",
    "this is the first sentence and that is the second one",
]

# One block without and one with a residual branch, and strides that differ: enough where depth only takes time.
TWO_BLOCKS = {
    "hidden_sizes": [16, 16],
    "num_repeats": [1, 2],
    "kernel_sizes": [5, 3],
    "strides": [1, 2],
    "residuals": [False, True],
    "dropouts": [0.0, 0.1],
}


def tiny_config(**kwargs) -> CitrinetConfig:
    """Four blocks of sixteen channels with an adapter of each kind and two categories of tags."""
    defaults = {
        "vocab_size": 12,
        "num_mel_bins": 8,
        "hidden_sizes": [16, 16, 16, 16],
        "num_repeats": [1, 2, 2, 1],
        "kernel_sizes": [5, 3, 3, 5],
        "strides": [1, 2, 2, 2],
        "residuals": [False, True, True, False],
        "dropouts": [0.0, 0.1, 0.1, 0.0],
        "se_reduction_ratio": 2,
        "adapters": [
            {"name": "first", "dim": 4, "norm_position": "pre"},
            {"name": "second", "dim": 4, "norm_position": "post"},
        ],
        "tag_labels": {"emotion": ["HAPPY", "NEUTRAL", "SAD"], "gender": ["FEMALE", "MALE"]},
    }
    return CitrinetConfig(**defaults | kwargs)


@cache
def _sentencepiece_model(model_type: str) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_SENTENCES * 5),
        model_writer=model,
        model_type=model_type,
        vocab_size=160,
        hard_vocab_limit=False,
        user_defined_symbols=["GENDER_MALE", "END"],
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def tiny_tokenizer(model_type: str) -> CitrinetTokenizer:
    """Tokenizer from a SentencePiece model (`"bpe"`, `"unigram"`, `"char"`) of a few Chinese and English sentences."""
    model = _sentencepiece_model(model_type)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return build_tokenizer([processor.id_to_piece(i) for i in range(processor.vocab_size())], model)
