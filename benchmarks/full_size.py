"""
Write a full-size Citrinet-1024 with adapters and random weights, with the tokenizer of the package's own model.

    python benchmarks/full_size.py OUT_DIR

Its speed is that of a trained one, but for the joining of its pieces: it writes more of them than anybody speaks.
"""

import sys

import torch
from transformers import AutoConfig, AutoProcessor

import citrinet


def main(output: str) -> None:
    """Write the model and its processor."""
    small = AutoConfig.from_pretrained(citrinet.default_model())
    config = citrinet.CitrinetConfig(
        vocab_size=small.vocab_size, tag_labels=small.tag_labels, adapters=[{"name": "adapter", "dim": 256}]
    )
    torch.manual_seed(0)
    citrinet.CitrinetForCTC(config).save_pretrained(output)
    AutoProcessor.from_pretrained(citrinet.default_model()).save_pretrained(output)


if __name__ == "__main__":
    main(sys.argv[1])
