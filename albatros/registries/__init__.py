"""Places that images are published to, behind one protocol."""
