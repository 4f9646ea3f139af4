"""The Hugging Face hub: addresses, downloads, uploads and model cards; nothing here reads weights."""
