"""The demo: built-in photographs, made into LR/HR pairs by a real-world-like degradation."""
