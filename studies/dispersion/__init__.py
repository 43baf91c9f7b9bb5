"""How far apart a model's hidden states are within meta-groups; see README.md."""
