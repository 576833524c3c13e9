"""Prompt → image, with NumPy, tokenizers and Pillow only; imports engines, never export."""
