"""Container images: reading sources, assembling one OCI index, publishing it. No database, no configuration."""
