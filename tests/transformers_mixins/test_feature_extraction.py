"""`SequenceFeatureExtractionTestMixin` on the front end."""

import unittest

import numpy as np

from citrinet import CitrinetFeatureExtractor

from .sdist import load

SequenceFeatureExtractionTestMixin = load("test_sequence_feature_extraction_common").SequenceFeatureExtractionTestMixin


class CitrinetFeatureExtractionTester:
    """Settings, none of them the default, and features as the mixin asks for them."""

    batch_size = 7
    feature_size = 16
    min_seq_length = 200
    max_seq_length = 800
    seq_length_diff = (max_seq_length - min_seq_length) // (batch_size - 1)

    def prepare_feat_extract_dict(self):
        return {"feature_size": self.feature_size, "pad_to_multiple_of": 8, "frontend": "nemo-2.4"}

    def prepare_inputs_for_common(self, equal_length=False, numpify=False):
        rng = np.random.default_rng(0)
        lengths = [self.min_seq_length + i * self.seq_length_diff for i in range(self.batch_size)]
        lengths = [self.max_seq_length] * self.batch_size if equal_length else lengths
        features = [rng.standard_normal((length, self.feature_size)).astype(np.float32) for length in lengths]
        return features if numpify else [feature.tolist() for feature in features]


class CitrinetFeatureExtractionTest(SequenceFeatureExtractionTestMixin, unittest.TestCase):
    feature_extraction_class = CitrinetFeatureExtractor

    def setUp(self):
        self.feat_extract_tester = CitrinetFeatureExtractionTester()
