"""Step 3: a network is trained on all that was spoken, which lies in the device's memory, for as long as there is."""
