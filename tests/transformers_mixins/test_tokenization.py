"""`TokenizerTesterMixin` on tokenizers from every kind of SentencePiece model."""

import inspect
import shutil
import tempfile
import unittest

from citrinet import CitrinetTokenizer
from tiny_models import tiny_tokenizer

from .sdist import load

TokenizerTesterMixin = load("test_tokenization_common").TokenizerTesterMixin


class BPETokenizationTest(TokenizerTesterMixin, unittest.TestCase):
    tokenizer_class = CitrinetTokenizer
    model_type = "bpe"

    @classmethod
    def setUpClass(cls):
        cls.from_pretrained_id = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.from_pretrained_id)
        tiny_tokenizer(cls.model_type).save_pretrained(cls.from_pretrained_id)
        super().setUpClass()

    def test_conversion_reversible(self):
        """Counted among the slow tests, which are skipped, for the sake of larger vocabularies."""
        inspect.unwrap(TokenizerTesterMixin.test_conversion_reversible)(self)


class UnigramTokenizationTest(BPETokenizationTest):
    model_type = "unigram"


class CharacterTokenizationTest(BPETokenizationTest):
    model_type = "char"

    def get_clean_sequence(self, tokenizer, with_prefix_space=False, max_length=20, min_length=5):
        """The mixin looks for tokens that are texts of their own, which a character without its `▁` is not."""
        text = " " * with_prefix_space + "the light is fine"
        return text, tokenizer.encode(text, add_special_tokens=False)
