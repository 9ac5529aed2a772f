"""Readers: each turns one kind of source into the parts of one platform's image, in a single pass."""
