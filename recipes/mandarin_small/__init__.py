"""How the embedded Mandarin model is made: text, speech, training."""
