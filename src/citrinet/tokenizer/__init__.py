"""Tokenizers: from a vocabulary and a SentencePiece model and back, and trained on texts."""
