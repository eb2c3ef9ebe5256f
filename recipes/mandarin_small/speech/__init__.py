"""Step 2: speak the texts with Kokoro-82M."""
