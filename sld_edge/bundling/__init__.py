"""What is done with a bundle that exists: verify it, plan its memory, build engines for it. Needs no torch."""
