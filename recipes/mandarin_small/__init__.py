"""Recipe of the package's small Mandarin model: text, speech, training."""
