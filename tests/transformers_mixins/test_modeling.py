"""`ModelTesterMixin` and `ConfigTester` on the network and its configuration."""

import unittest

import torch
from tiny_models import tiny_config
from transformers.testing_utils import torch_device

from citrinet import CitrinetConfig, CitrinetForCTC, CitrinetModel

from .library import load

ConfigTester = load("test_configuration_common").ConfigTester
ModelTesterMixin = load("test_modeling_common").ModelTesterMixin

BATCH, FRAMES, LABELS = 3, 40, 4


class CitrinetModelTester:
    """Configuration and inputs as the mixin asks for them."""

    def __init__(self, parent):
        config = tiny_config()
        self.parent = parent
        self.batch_size = BATCH
        self.num_hidden_layers = config.num_hidden_layers
        self.hidden_size = config.hidden_size
        self.is_training = True

    def prepare_config_and_inputs_for_common(self):
        config = tiny_config()
        mask = torch.ones(BATCH, FRAMES, dtype=torch.long)
        mask[1, 30:] = 0
        features = torch.randn(BATCH, FRAMES, config.num_mel_bins) * mask[..., None]
        return config, {"input_features": features.to(torch_device), "attention_mask": mask.to(torch_device)}


class CitrinetModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (CitrinetModel, CitrinetForCTC)
    has_attentions = False
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = CitrinetModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=CitrinetConfig, common_properties=["hidden_size", "num_hidden_layers"]
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = dict(inputs_dict)
        if return_labels and model_class is CitrinetForCTC:
            inputs["labels"] = torch.randint(0, 11, (BATCH, LABELS), device=torch_device)
            inputs["tag_labels"] = {
                "emotion": torch.randint(0, 3, (BATCH,), device=torch_device),
                "gender": torch.randint(0, 2, (BATCH,), device=torch_device),
            }
        return inputs
