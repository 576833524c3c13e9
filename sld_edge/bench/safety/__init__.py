"""How often a bundle shows what it should not, at each strength of safety, and what safety costs."""
