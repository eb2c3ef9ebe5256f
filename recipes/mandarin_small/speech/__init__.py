"""Step 2: texts are spoken by Kokoro-82M."""
