"""`ProcessorTesterMixin` on feature extractor and tokenizer together."""

import unittest
from unittest.mock import patch

from citrinet import CitrinetFeatureExtractor, CitrinetProcessor
from tiny_models import tiny_tokenizer

from .sdist import load

ProcessorTesterMixin = load("test_processing_common").ProcessorTesterMixin

# Saving a class that is registered for remote code notes `auto_map` on the object, and loading leaves it out of a
# processor: only without it can the object saved and the object loaded be equal.
without_remote_code = patch.object(CitrinetProcessor, "_auto_class", None)


class CitrinetProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = CitrinetProcessor
    text_input_name = "labels"

    @classmethod
    def _setup_feature_extractor(cls):
        return CitrinetFeatureExtractor()

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer("bpe")

    @without_remote_code
    def test_processor_from_and_save_pretrained(self):
        super().test_processor_from_and_save_pretrained()

    @without_remote_code
    def test_processor_from_and_save_pretrained_as_nested_dict(self):
        super().test_processor_from_and_save_pretrained_as_nested_dict()
