"""Content-addressed blobs: what outputs, layers, manifests and sealed logs are kept in."""
