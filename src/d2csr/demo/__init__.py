"""Demo data: built-in photographs and a simulated degradation."""
