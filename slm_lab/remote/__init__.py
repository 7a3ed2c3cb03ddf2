"""Training elsewhere and results on the Hugging Face Hub; imports no torch."""
