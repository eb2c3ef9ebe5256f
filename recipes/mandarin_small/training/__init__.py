"""Step 3: train a network on the speech, which is kept in the device's memory, for a given time."""
