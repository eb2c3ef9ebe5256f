"""Read a Transformers repository for the exporters."""

from dataclasses import dataclass
from pathlib import Path

from transformers.utils.hub import cached_file

from citrinet import CitrinetFeatureExtractor, CitrinetForCTC, CitrinetTokenizer
from citrinet.checkpoint import load_network, load_processor
from citrinet.tokenizer.building import sentencepiece_model

from .nemo_archive import ConversionError


@dataclass
class Repository:
    """
    The parts of a model that exporters need.

    Args:
        network: the network, in evaluation mode.
        features: its feature extractor.
        tokenizer: its tokenizer.
        sentencepiece_model: content of the tokenizer's SentencePiece file; `None` for a tokenizer of characters.
    """

    network: CitrinetForCTC
    features: CitrinetFeatureExtractor
    tokenizer: CitrinetTokenizer
    sentencepiece_model: bytes | None

    @property
    def size(self) -> int:
        """Size of the weights in bytes."""
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())


def read_repository(model: str) -> Repository:
    """
    Read a model, and check that it is complete.

    Args:
        model: a folder or a Hub repository.

    Raises:
        ConversionError: if it is not a Citrinet, damaged or incomplete, or has a tokenizer of another kind.
        OSError: if it cannot be found or downloaded.
    """
    try:
        network, processor = load_network(model), load_processor(model)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    tokenizer = processor.tokenizer
    try:
        sentencepiece = sentencepiece_model(tokenizer, _stored_sentencepiece_model(model))
    except ValueError as error:
        raise ConversionError(f"{model}: {error}") from error
    return Repository(network, processor.feature_extractor, tokenizer, sentencepiece)


def _stored_sentencepiece_model(model: str) -> bytes | None:
    """The `tokenizer.model` of a converted repository; `None` for a trained one, which has no such file."""
    try:
        return Path(str(cached_file(model, "tokenizer.model"))).read_bytes()
    except OSError:
        return None
