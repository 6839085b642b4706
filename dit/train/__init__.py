"""Training of portrait adapters: clips to shards, shards to an adapter, checkpoints to a file."""
