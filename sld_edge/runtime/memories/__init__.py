"""Memories that the denoising loop's arrays can lie in, one a file."""
